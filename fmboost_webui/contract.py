"""What the extension needs of its host. Imports nothing of a host, so that any host can load it."""

from __future__ import annotations

from functools import cache
from importlib import import_module

# Members of the host's package `modules`, of all its parts the ones that other web UIs of the same origin have dropped.
NEEDED = (
    "shared.latent_upscale_modes", "processing.StableDiffusionProcessingTxt2Img.sample_hr_pass",
    "processing.decode_latent_batch", "processing.DecodedSamples", "rng.ImageRNG", "sd_models.model_data",
    "sd_samplers_common.store_latent",
)  # fmt: skip


def missing() -> list[str]:
    """Those of `NEEDED` that this host does not have."""
    return [name for name in NEEDED if not _has(name)]


def _has(name: str) -> bool:
    module, *members = name.split(".")
    try:
        found: object = import_module(f"modules.{module}")
        for member in members:
            found = getattr(found, member)
    except (ImportError, AttributeError):
        return False
    return True


def refusal(names: list[str]) -> str:
    """A sentence for the console of a host without these members."""
    return (
        f"FMBoost: this web UI has no {names[0]}, so FMBoost is switched off in it; use AUTOMATIC1111, Forge or one of "
        "its forks, ComfyUI, or the command line."
    )


@cache
def announce() -> None:
    """Say on the console, once, what to do first."""
    print("FMBoost: in txt2img, open Hires. fix and choose the upscaler FMBoost 2x.")
