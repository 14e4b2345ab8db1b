"""Foreign latent spaces: those that hosts have and FMBoost has no family for, so that a message can name them.

A space is one entry of `SPACES`. The channels and the names of classes are those of ComfyUI 0.33.
"""

from __future__ import annotations

from dataclasses import dataclass

IMAGES, STAGE, VIDEO, SOUND, SHAPES = "images", "a second stage", "video", "sound", "3D shapes"


@dataclass(frozen=True)
class ForeignSpace:
    """A latent space without a family.

    title: its name for people. channels: of its latents. kind: what its latents show. Those of a second stage go from
    one model to another one alone. Those of video have an axis of frames, also where they show an image.
    classes: names of ComfyUI's classes for it, in `comfy.latent_formats`, and of VAEs whose channels a family has too.
    """

    title: str
    channels: int
    kind: str
    classes: tuple[str, ...]


SPACES = (
    ForeignSpace("pixel space", 3, IMAGES, ("ChromaRadiance", "ZImagePixelSpace", "HiDreamO1Pixel", "PixelDiTPixel")),
    ForeignSpace("Stable Cascade's stage B", 4, STAGE, ("SC_B", "StageA")),
    ForeignSpace("SD x4 Upscaler", 4, STAGE, ("SD_X4",)),
    ForeignSpace("Stable Cascade", 16, IMAGES, ("SC_Prior", "StageC_coder")),
    ForeignSpace("HunyuanImage 2.1", 64, IMAGES, ("HunyuanImage21",)),
    ForeignSpace("FLUX.2", 128, IMAGES, ("Flux2",)),
    ForeignSpace("Mochi", 12, VIDEO, ("Mochi",)),
    ForeignSpace("Qwen-Image/Wan 2.1", 16, VIDEO, ("Wan21", "WanVAE")),
    ForeignSpace("HunyuanVideo", 16, VIDEO, ("HunyuanVideo",)),
    ForeignSpace("Cosmos", 16, VIDEO, ("Cosmos1CV8x8x8",)),
    ForeignSpace("CogVideoX", 16, VIDEO, ("CogVideoX", "CogVideoX1_5")),
    ForeignSpace("SeedVR2", 16, VIDEO, ("SeedVR2",)),
    ForeignSpace("MiniMax H3", 24, VIDEO, ("MiniMaxH3Video", "MiniMaxH3AV")),
    ForeignSpace("HunyuanVideo 1.5", 32, VIDEO, ("HunyuanVideo15",)),
    ForeignSpace("Wan 2.2", 48, VIDEO, ("Wan22",)),
    ForeignSpace("HunyuanImage 2.1's refiner", 64, STAGE, ("HunyuanImage21Refiner",)),
    ForeignSpace("LTX Video", 128, VIDEO, ("LTXV", "LTXAV")),
    ForeignSpace("ACE-Step", 8, SOUND, ("ACEAudio",)),
    ForeignSpace("Stable Audio", 64, SOUND, ("StableAudio1",)),
    ForeignSpace("ACE-Step 1.5", 64, SOUND, ("ACEAudio15",)),
    ForeignSpace("MiniMax Music 3", 128, SOUND, ("MiniMaxMusic3",)),
    ForeignSpace("Stable Audio 3", 256, SOUND, ("StableAudio3",)),
    ForeignSpace("TripoSplat", 16, SHAPES, ("TripoSplat",)),
    ForeignSpace("Trellis 2", 32, SHAPES, ("Trellis2", "Trellis2SLAT", "Trellis2ShapeSLAT", "Trellis2TexSLAT")),
    ForeignSpace("Hunyuan3D", 64, SHAPES, ("Hunyuan3Dv2", "Hunyuan3Dv2_1", "Hunyuan3Dv2mini")),
)


def space_of_class(name: str) -> ForeignSpace | None:
    """The foreign space of one of ComfyUI's classes, by its name; None for the class of a family or an unknown one."""
    return next((space for space in SPACES if name in space.classes), None)


def foreign_titles(channels: int, kind: str | None = None) -> list[str]:
    """The names of the foreign spaces with so many channels, of one kind or of all."""
    return [space.title for space in SPACES if space.channels == channels and kind in (None, space.kind)]
