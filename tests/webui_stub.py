"""A stub of AUTOMATIC1111: the parts that the extension uses, with the host's signatures.

The parts do the least that is true of the host; tests/hosts runs the extension in the real ones.
"""

from __future__ import annotations

import sys
import threading
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
    """LDM's distribution: a sample comes from the global generator."""

    def __init__(self, moments: torch.Tensor) -> None:
        self.mean, log_variance = moments.chunk(2, dim=1)
        self.deviation = torch.exp(0.5 * log_variance.clamp(-30, 20))

    def sample(self) -> torch.Tensor:
        return self.mean + self.deviation * torch.randn_like(self.mean)


class LatentFormat:
    """The numbers of a latent space, in AUTOMATIC1111's `modules/models/sd3` and in the packages of Forge's forks."""

    def __init__(self, scale_factor: float, shift_factor: float = 0.0) -> None:
        self.scale_factor = scale_factor
        if shift_factor:  # spaces without a shift have no such attribute
            self.shift_factor = shift_factor

    def process_in(self, latent: torch.Tensor) -> torch.Tensor:
        return (latent - getattr(self, "shift_factor", 0.0)) * self.scale_factor

    def process_out(self, latent: torch.Tensor) -> torch.Tensor:
        return latent / self.scale_factor + getattr(self, "shift_factor", 0.0)


class Moments(torch.nn.Module):
    """From images in [-1,1] to the mean and the logarithm of the variance of raw latents."""

    def __init__(self, codec: Any, space: LatentFormat) -> None:
        super().__init__()
        self.codec, self.space = codec, space

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = self.space.process_out(self.codec.encode(x))
        return torch.cat([mean, torch.zeros_like(mean)], dim=1)


class Network(torch.nn.Module):
    """A KL autoencoder, whose layer `quant_conv` is the last before the moments; those of 16 channels have none."""

    def __init__(self, codec: Any, space: LatentFormat) -> None:
        super().__init__()
        self.encoder = Moments(codec, space)
        self.quant_conv = torch.nn.Identity() if codec.channels == 4 else None

    def encode(self, x: torch.Tensor) -> Posterior:
        moments = self.encoder(x)
        return Posterior(moments if self.quant_conv is None else self.quant_conv(moments))

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return self.encoder.codec.decode(self.encoder.space.process_in(z))


@cache
def wide_codec() -> Any:
    """A codec of 16 channels with random weights, whose latents are scaled."""
    from networks import randomised

    from fmboost_core.codecs.tiny import tiny_codec

    torch.manual_seed(0)
    return randomised(tiny_codec(channels=16, width=16, blocks=1, stem=4)).eval().requires_grad_(False)


class Checkpoint:
    """A diffusion model of AUTOMATIC1111, whose VAE is a codec. attribute: the one that says its family.

    Of SD1.x and SD2.x the host gives the posterior, of SDXL and SD3 a scaled sample.
    """

    is_sd1 = is_sd2 = is_sdxl = is_sd3 = False

    def __init__(self, attribute: str = "is_sd1") -> None:
        from fmboost_core import load_codec

        self.codec = wide_codec() if attribute == "is_sd3" else load_codec("builtin")
        self.space = LatentFormat(1.5305, 0.0609) if attribute == "is_sd3" else LatentFormat(0.18215)
        self.first_stage_model: Any = Network(self.codec, self.space)
        setattr(self, attribute, True)

    def encode_first_stage(self, x: torch.Tensor) -> Any:
        with torch.no_grad():
            posterior = self.first_stage_model.encode(x)
        return self.space.process_in(posterior.sample()) if self.is_sdxl or self.is_sd3 else posterior

    def get_first_stage_encoding(self, x: Any) -> torch.Tensor:
        return self.space.process_in(x.sample()) if isinstance(x, Posterior) else x

    def decode_first_stage(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self.first_stage_model.decode(self.space.process_out(x))


class SD3Checkpoint(Checkpoint):
    """AUTOMATIC1111's `SD3Inferencer`."""

    def __init__(self) -> None:
        super().__init__("is_sd3")


class ForgeVAE:
    """The VAE of Forge and its forks: pixels (B,H,W,3) in [0,1], raw latents."""

    def __init__(self, network: Network, channels: int) -> None:
        self.first_stage_model, self.latent_channels = network, channels

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self.first_stage_model.encode(pixels.movedim(-1, 1) * 2 - 1).sample()

    def decode(self, raw: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return (self.first_stage_model.decode(raw).movedim(1, -1) / 2 + 0.5).clamp(0, 1)


class ForgeCheckpoint(Checkpoint):
    """A diffusion model of Forge or of a fork. Of FLUX.1 and Chroma all its attributes are false.

    host: "forge", "neo" or "reforge" (also Forge Classic), which hold the numbers of the latent space in other places.
    """

    def __init__(self, scaling_factor: float, shift: float = 0.0, channels: int = 4, host: str = "forge") -> None:
        super().__init__("is_inpaint" if channels == 4 else "is_sd3")
        self.is_sd3, self.space = False, LatentFormat(scaling_factor, shift)
        network, self.first_stage_model = Network(self.codec, self.space), None
        diffusion = SimpleNamespace()
        if host == "forge":
            network.scaling_factor, network.shift_factor = scaling_factor, shift
        elif host == "neo":
            network.latent_format = self.space
        else:
            diffusion.latent_format = self.space
        self.forge_objects = SimpleNamespace(vae=ForgeVAE(network, channels), unet=SimpleNamespace(model=diffusion))

    def encode_first_stage(self, x: torch.Tensor) -> torch.Tensor:
        return self.space.process_in(self.forge_objects.vae.encode(x.movedim(1, -1) * 0.5 + 0.5))

    def decode_first_stage(self, x: torch.Tensor) -> torch.Tensor:
        return self.forge_objects.vae.decode(self.space.process_out(x)).movedim(-1, 1) * 2 - 1


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
    denoising_strength: float = 0.5
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
    name: str | None = None

    def __init__(self, create_dirs: bool = False) -> None:
        pass

    def upscale(self, img: Any, scale: float, selected_model: str | None = None) -> Any:
        return img


class Crisp(Upscaler):
    """An upscaler of the host with two entries, of which one is broken: it reports its error, and does nothing."""

    name = "Crisp"

    def do_upscale(self, img: Any, selected_model: str | None = None) -> Any:
        if selected_model == "broken":
            return img
        large = img.resize((img.width * 4, img.height * 4), 0)
        return large.point(lambda v: min(255, max(0, round((v - 128) * 1.2 + 128))))


def listed(name: str, path: str | None, scaler: Upscaler, scale: int | None = 4) -> SimpleNamespace:
    """The host's `UpscalerData`."""
    return SimpleNamespace(name=name, data_path=path, scaler=scaler, scale=scale)


class Opts(SimpleNamespace):
    """The host's settings."""

    def add_option(self, name: str, info: Any) -> None:
        setattr(self, name, info.default)
        self.onchange = info.onchange


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

    class DecodedSamples(list[Any]):
        already_decoded = True

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
            "decode_latent_batch": decode_latent_batch, "DecodedSamples": DecodedSamples,
            "StableDiffusionProcessingTxt2Img": Job, "opt_f": 8,
        },
        "rng": {"ImageRNG": ImageRNG},
        "lowvram": {"is_enabled": lambda model: False},
        "sd_models": {"model_data": SimpleNamespace(sd_model=checkpoint, lock=threading.Lock())},
        "sd_samplers_common": {"store_latent": lambda latent: setattr(state, "current_latent", latent)},
        "shared": {
            "state": state, "total_tqdm": told, "sd_model": checkpoint, "latent_upscale_modes": {},
            "sd_upscalers": [
                listed("Lanczos", None, Upscaler()), listed("Crisp 4x", "crisp", Crisp()),
                listed("Broken 4x", "broken", Crisp(), None),
            ],
            "OptionInfo": lambda default, label, component, args, onchange, section: SimpleNamespace(
                default=default, onchange=onchange
            ),
            "opts": Opts(sd_vae_decode_method="Full", save_images_before_highres_fix=False),
        },
        "scripts": {"Script": Script, "AlwaysVisible": object(), "scripts_data": []},
        "script_callbacks": {
            name: lambda callback: None for name in ("on_before_ui", "on_app_started", "on_ui_settings")
        },
        "upscaler": {"Upscaler": Upscaler, "UpscalerData": listed},
    }  # fmt: skip
    parent = ModuleType("modules")
    monkeypatch.setitem(sys.modules, "modules", parent)
    for name, module in modules.items():
        vars(module).update(contents[name])
        setattr(parent, name, module)
        monkeypatch.setitem(sys.modules, f"modules.{name}", module)
    gradio = ModuleType("gradio")
    vars(gradio).update(Dropdown=object())  # of a setting; the page itself is not built here
    parent.__path__ = []  # type: ignore[attr-defined]  # a package: its parts are imported by name
    monkeypatch.setitem(sys.modules, "gradio", gradio)
    for name in [name for name in sys.modules if name.partition(".")[0] == "fmboost_webui"]:
        monkeypatch.delitem(sys.modules, name)
    return SimpleNamespace(**modules)
