"""A stub of AUTOMATIC1111: the parts that the extension uses, with the host's signatures.

The parts do the least that is true of the host; tests/hosts runs the extension in the real ones.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

NAMES = (
    "devices", "images", "paths", "processing", "rng", "lowvram", "sd_models", "sd_samplers_common", "shared",
    "scripts", "script_callbacks", "upscaler",
)  # fmt: skip


class Posterior:
    def __init__(self, mean: torch.Tensor) -> None:
        self._mean = mean

    def mode(self) -> torch.Tensor:
        return self._mean


class Checkpoint:
    """A diffusion model whose VAE is the built-in codec. attribute: the one that says its family."""

    is_sd1 = is_sd2 = is_sdxl = is_sd3 = False

    def __init__(self, attribute: str = "is_sd1") -> None:
        from fmboost_core import load_codec

        self.first_stage_model = load_codec("builtin")
        setattr(self, attribute, True)

    def encode_first_stage(self, x: torch.Tensor) -> Posterior:
        with torch.no_grad():
            return Posterior(self.first_stage_model.encode(x))

    def get_first_stage_encoding(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def decode_first_stage(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self.first_stage_model.decode(x)


@cache
def wide_codec() -> Any:
    """A codec of 16 channels with random weights, whose latents are scaled."""
    from networks import randomised

    from fmboost_core.codecs.tiny import tiny_codec

    torch.manual_seed(0)
    return randomised(tiny_codec(channels=16, width=16, blocks=1, stem=4)).eval().requires_grad_(False)


class LatentFormat:
    """SD3's, in AUTOMATIC1111's `modules/models/sd3`."""

    scale_factor, shift_factor = 1.5305, 0.0609

    def process_in(self, latent: torch.Tensor) -> torch.Tensor:
        return (latent - self.shift_factor) * self.scale_factor

    def process_out(self, latent: torch.Tensor) -> torch.Tensor:
        return latent / self.scale_factor + self.shift_factor


class SD3Encoder(torch.nn.Module):
    """From images in [-1,1] to the mean and the logarithm of the variance of raw latents."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = LatentFormat().process_out(wide_codec().encode(x))
        return torch.cat([mean, torch.zeros_like(mean)], dim=1)


class SD3VAE(torch.nn.Module):
    """It gives a sample of the posterior, by the global generator."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = SD3Encoder()

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        mean, logvar = self.encoder(x).chunk(2, dim=1)
        return mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return wide_codec().decode(LatentFormat().process_in(z))


class SD3Checkpoint(Checkpoint):
    """AUTOMATIC1111's `SD3Inferencer`."""

    latent_channels = 16

    def __init__(self) -> None:
        super().__init__("is_sd3")
        self.first_stage_model, self.latent_format = SD3VAE(), LatentFormat()

    def encode_first_stage(self, x: torch.Tensor) -> torch.Tensor:
        return self.latent_format.process_in(self.first_stage_model.encode(x))

    def decode_first_stage(self, x: torch.Tensor) -> torch.Tensor:
        return self.first_stage_model.decode(self.latent_format.process_out(x))


class ForgeNetwork:
    """Forge's `IntegratedAutoencoderKL`: it knows its numbers."""

    def __init__(self, scaling_factor: float, shift_factor: float) -> None:
        self.scaling_factor, self.shift_factor = scaling_factor, shift_factor

    def process_in(self, latent: torch.Tensor) -> torch.Tensor:
        return (latent - self.shift_factor) * self.scaling_factor

    def process_out(self, latent: torch.Tensor) -> torch.Tensor:
        return latent / self.scaling_factor + self.shift_factor


class ForgeVAE:
    """Forge's `VAE`: pixels (B,H,W,3) in [0,1], raw latents; a sample of the posterior unless it is told otherwise."""

    def __init__(self, network: ForgeNetwork, codec: Any) -> None:
        self.first_stage_model, self.codec, self.latent_channels = network, codec, codec.channels
        self.regulation: Any = None
        self.patcher = SimpleNamespace(set_model_vae_regulation=lambda function: setattr(self, "regulation", function))

    def clone(self) -> ForgeVAE:
        return ForgeVAE(self.first_stage_model, self.codec)

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        mean = self.first_stage_model.process_out(self.codec.encode(pixels.movedim(-1, 1) * 2 - 1))
        return mean + torch.randn_like(mean) if self.regulation is None else self.regulation(Posterior(mean))

    def decode(self, raw: torch.Tensor) -> torch.Tensor:
        images = self.codec.decode(self.first_stage_model.process_in(raw))
        return (images.movedim(1, -1) / 2 + 0.5).clamp(0, 1)


class ForgeCheckpoint(Checkpoint):
    """Forge's `ForgeDiffusionEngine`. Of FLUX.1 and Chroma all its attributes are false."""

    def __init__(self, scaling_factor: float, shift_factor: float = 0.0, channels: int = 4) -> None:
        super().__init__("is_inpaint")
        codec = self.first_stage_model if channels == 4 else wide_codec()
        self.forge_objects = SimpleNamespace(vae=ForgeVAE(ForgeNetwork(scaling_factor, shift_factor), codec))

    def decode_first_stage(self, x: torch.Tensor) -> torch.Tensor:
        vae = self.forge_objects.vae
        return vae.decode(vae.first_stage_model.process_out(x)).movedim(-1, 1) * 2 - 1


class ImageRNG:
    def __init__(
        self, shape: Any, seeds: Any, subseeds: Any = None, subseed_strength: float = 0.0, seed_resize_from_h: int = 0,
        seed_resize_from_w: int = 0,
    ) -> None:  # fmt: skip
        self.shape = shape
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def next(self) -> torch.Tensor:
        return torch.stack([torch.randn(self.shape, generator=g) for g in self.generators])


@dataclass
class Job:
    """`StableDiffusionProcessingTxt2Img`, as it is when the second pass begins."""

    sd_model: Any
    enable_hr: bool = True
    hr_upscaler: str = "FMBoost 2x"
    width: int = 64
    height: int = 64
    hr_upscale_to_x: int = 128
    hr_upscale_to_y: int = 128
    hr_second_pass_steps: int = 0
    hr_prompt: str = "a second prompt"
    hr_negative_prompt: str = ""
    hr_checkpoint_name: str | None = "another"
    hr_sampler_name: str | None = "DDIM"
    hr_scheduler: str | None = "Karras"
    tiling: bool = False
    truncate_x: int = 0
    truncate_y: int = 0
    firstpass_image: Any = None
    latent_scale_mode: Any = None
    is_hr_pass: bool = False
    sampler: Any = "the first pass's"
    seeds: list[int] = field(default_factory=lambda: [5])
    subseeds: list[int] = field(default_factory=lambda: [0])
    subseed_strength: float = 0.0
    seed_resize_from_h: int = 0
    seed_resize_from_w: int = 0
    extra_generation_params: dict[str, Any] = field(default_factory=dict)

    comments: dict[str, int] = field(default_factory=dict)

    def comment(self, text: str) -> None:
        self.comments[text] = 1

    def save_samples(self) -> bool:
        return False

    def calculate_target_resolution(self) -> None:
        """Here the target is a field already."""

    def sample(self) -> str:
        return "the first pass"

    def sample_hr_pass(self, samples: Any, decoded: Any, seeds: Any, subseeds: Any, strength: Any, prompts: Any) -> Any:
        return ("the host's own pass", samples, self.latent_scale_mode)


class Script:
    pass


class Upscaler:
    def __init__(self, create_dirs: bool = False) -> None:
        pass

    def upscale(self, img: Any, scale: float, selected_model: str | None = None) -> Any:
        return img


def install(monkeypatch: pytest.MonkeyPatch, models_path: Path) -> SimpleNamespace:
    """Put the stub into `sys.modules`; returns its modules by name."""
    modules = {name: ModuleType(f"modules.{name}") for name in NAMES}
    checkpoint = Checkpoint()
    state = SimpleNamespace(
        interrupted=False, skipped=False, sampling_step=0, sampling_steps=0, jobs=0, current_latent=None
    )
    state.nextjob = lambda: setattr(state, "jobs", state.jobs + 1)
    told = SimpleNamespace(steps=0)
    told.update = lambda: setattr(told, "steps", told.steps + 1)

    def decode_latent_batch(
        model: Any, batch: Any, target_device: Any = None, check_for_nans: bool = False
    ) -> list[Any]:
        return [model.decode_first_stage(latent)[0] for latent in batch.split(1)]

    contents: dict[str, dict[str, Any]] = {
        "devices": {
            "device": torch.device("cpu"), "cpu": torch.device("cpu"), "dtype": torch.float32,
            "dtype_vae": torch.float32, "without_autocast": nullcontext, "torch_gc": lambda: None,
        },
        "images": {},
        "paths": {"models_path": str(models_path)},
        "processing": {
            "decode_latent_batch": decode_latent_batch, "StableDiffusionProcessingTxt2Img": Job, "opt_f": 8,
        },
        "rng": {"ImageRNG": ImageRNG},
        "lowvram": {"is_enabled": lambda model: False},
        "sd_models": {"model_data": SimpleNamespace(sd_model=checkpoint)},
        "sd_samplers_common": {"store_latent": lambda latent: setattr(state, "current_latent", latent)},
        "shared": {
            "state": state, "total_tqdm": told, "sd_model": checkpoint, "latent_upscale_modes": {},
            "opts": SimpleNamespace(sd_vae_decode_method="Full", save_images_before_highres_fix=False),
        },
        "scripts": {"Script": Script, "AlwaysVisible": object(), "scripts_data": []},
        "script_callbacks": {"on_before_ui": lambda callback: None},
        "upscaler": {"Upscaler": Upscaler, "UpscalerData": lambda *a: SimpleNamespace(name=a[0])},
    }  # fmt: skip
    backend = ModuleType("backend")  # Forge's own package, which the extension looks into in Forge alone
    backend.memory_management = SimpleNamespace()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "backend", backend)
    parent = ModuleType("modules")
    monkeypatch.setitem(sys.modules, "modules", parent)
    for name, module in modules.items():
        vars(module).update(contents[name])
        setattr(parent, name, module)
        monkeypatch.setitem(sys.modules, f"modules.{name}", module)
    gradio = ModuleType("gradio")
    monkeypatch.setitem(sys.modules, "gradio", gradio)
    for name in [name for name in sys.modules if name.partition(".")[0] == "fmboost_webui"]:
        monkeypatch.delitem(sys.modules, name)
    return SimpleNamespace(**modules)
