"""Inputs that several nodes share, and how they become the core's arguments."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..fmboost_core.sampling.guide import UPSAMPLERS
from ..fmboost_core.sampling.solvers import MAX_NFE, SOLVERS
from ..fmboost_core.sampling.tiling import TILE_CHOICES

CATEGORY = "FMBoost"
CFM = io.Custom("FMBOOST_CFM")

SIZE_BY = ("scale", "width x height", "megapixels")
OWN_NOISE_STEP = -1  # the model's own
OWN_NFE = 0  # as many as the model is made for
DEFAULT_SCALE = 2.0


def size_inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "size_by", options=list(SIZE_BY), default="scale",
            tooltip="How the size is given. Only the widgets of this choice are used.",
        ),
        io.Float.Input(
            "scale", default=2.0, min=1.0, max=16.0, step=0.05, tooltip="Times as wide and as high.",
        ),
        io.Int.Input(
            "width", default=1024, min=8, max=16384, step=8,
            tooltip="Pixels. Another aspect than the input's covers the size and is cut at the centre.",
        ),
        io.Int.Input("height", default=1024, min=8, max=16384, step=8, tooltip="Pixels."),
        io.Float.Input(
            "megapixels", default=1.0, min=0.01, max=256.0, step=0.01,
            tooltip="Millions of pixels, in the input's aspect.",
        ),
    ]  # fmt: skip


def wanted_size(size_by: str, scale: float, width: int, height: int, megapixels: float) -> dict[str, Any]:
    """The core's `scale`, `size` or `megapixels`."""
    if size_by == "scale":
        return {"scale": scale}
    return {"size": (width, height)} if size_by == "width x height" else {"megapixels": megapixels}


def method_input() -> io.Input:
    return io.Combo.Input(
        "method", options=list(UPSAMPLERS), default="psu",
        tooltip="psu: decode, enlarge the picture, encode; what the models were trained with. "
        "bilinear and nearest enlarge the latent itself: no VAE, but artefacts.",
    )  # fmt: skip


def vae_tiling_input() -> io.Input:
    return io.Boolean.Input(
        "tiled_vae", default=False, label_on="always tiled", label_off="auto",
        tooltip="auto: the VAE works in tiles only when memory runs out. Tiles save memory and may show seams.",
    )  # fmt: skip


def seed_input() -> io.Input:
    return io.Int.Input(
        "seed", default=0, min=0, max=2**64 - 1, control_after_generate=True,
        tooltip="Of the noise from which fine detail grows. Each item of a batch has its own.",
    )  # fmt: skip


def noise_step_input() -> io.Input:
    return io.Int.Input(
        "noise_step", default=OWN_NOISE_STEP, min=OWN_NOISE_STEP, max=999,
        tooltip="How much noise the start gets, 0 to 999: less is truer to the small picture, more draws more detail. "
        "The sd15 models know 100 to 700. -1: as much as the model was made for.",
    )  # fmt: skip


def nfe_input() -> io.Input:
    return io.Int.Input(
        "nfe", default=OWN_NFE, min=OWN_NFE, max=MAX_NFE,
        tooltip="Evaluations of the network in each stage; 0: as many as the model is made for. More give more detail.",
    )  # fmt: skip


def wanted_nfe(nfe: int) -> int | None:
    """The core's `nfe`: None is the model's own."""
    return None if nfe == OWN_NFE else nfe


def solver_input() -> io.Input:
    return io.Combo.Input(
        "solver", options=list(SOLVERS), default="euler",
        tooltip="How the flow is followed. midpoint and heun take even numbers of evaluations, rk4 multiples of 4; "
        "dopri5 and the others after it choose their own and need the package torchdiffeq.",
    )  # fmt: skip


def tile_input() -> io.Input:
    return io.Combo.Input(
        "tile", options=list(TILE_CHOICES), default="auto",
        tooltip="Side of the network's tiles in latents (8 pixels each). auto cuts what is larger than 2300 pixels. "
        "Tiles leave no seams; smaller ones take less memory and more time.",
    )  # fmt: skip
