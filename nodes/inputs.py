"""Inputs that several nodes share, and the core's objects from their widgets.

Here, and only here, a widget's 0 or -1 becomes None: the model's own value.
"""

from __future__ import annotations

from comfy_api.latest import io

from ..fmboost_core.sampling.guide import UPSAMPLERS
from ..fmboost_core.sampling.options import SamplingOptions
from ..fmboost_core.sampling.solvers import MAX_NFE, SOLVERS
from ..fmboost_core.sampling.target import Target
from ..fmboost_core.sampling.tiling import TILE_CHOICES, parse_tile
from ..fmboost_core.sampling.widgets import OWN_METHOD, OWN_NFE, OWN_NOISE_STEP, OWN_STRENGTH, or_none
from ..fmboost_core.spec import MAX_STRENGTH
from ..fmboost_core.tiles import TILEABLE_CHOICES
from .newer import folded

CFM = io.Custom("FMBOOST_CFM")

SIZE_BY = ("scale", "width x height", "megapixels")
DEFAULT_SCALE = 2.0
UNIT = 8  # pixels per latent, where no VAE tells it
VAE_ADVICE = "connect one, or choose the method auto and a model whose name ends in -direct"


def size_inputs(unit: int = 8) -> list[io.Input]:
    """unit: pixels to which the width and the height are typed; 1 for images, which have any size."""
    return [
        io.Combo.Input(
            "size_by", options=list(SIZE_BY), default="scale",
            tooltip="How the size is given. The node uses only the widgets of this choice.",
        ),
        io.Float.Input(
            "scale", default=2.0, min=1.0, max=16.0, step=0.05, tooltip="Upscale factor of both sides.",
        ),
        io.Int.Input(
            "width", default=1024, min=unit, max=16384, step=unit,
            tooltip="Pixels. An input of another aspect covers the size and is cropped at the centre.",
        ),
        io.Int.Input("height", default=1024, min=unit, max=16384, step=unit, tooltip="Pixels."),
        io.Float.Input(
            "megapixels", default=1.0, min=0.01, max=256.0, step=0.01,
            tooltip="Area in millions of pixels, with the input's aspect.",
        ),
    ]  # fmt: skip


def target_of(size_by: str, scale: float, width: int, height: int, megapixels: float) -> Target:
    """The target that the size widgets ask for."""
    if size_by == "scale":
        return Target(scale=scale)
    return Target(size=(width, height)) if size_by == "width x height" else Target(megapixels=megapixels)


def options_of(
    nfe: int,
    solver: str,
    noise_step: int = OWN_NOISE_STEP,
    method: str = OWN_METHOD,
    tile: str = "auto",
    tileable: str = "off",
    strength: float = OWN_STRENGTH,
) -> SamplingOptions:
    """The sampling options of the widgets."""
    return SamplingOptions(
        nfe=or_none(nfe, OWN_NFE),
        solver=solver,
        noise_step=noise_step_of(noise_step),
        upsample=or_none(method, OWN_METHOD),
        tile=parse_tile(tile),
        tileable=tileable,
        strength=or_none(strength, OWN_STRENGTH),
    )


def noise_step_of(noise_step: int) -> int | None:
    """The noise step of its widget; None: the model's own."""
    return or_none(noise_step, OWN_NOISE_STEP)


def method_input() -> io.Input:
    return folded(
        io.Combo, "method", options=[OWN_METHOD, *UPSAMPLERS], default=OWN_METHOD,
        tooltip="auto: a bundled upscale model enlarges the picture, or the model's guide network makes the guide. "
        "psu: decode, interpolate the picture, encode. fast: by the model's guide network, without the VAE. bilinear "
        "and nearest upscale the latent itself: without the VAE, but with artefacts.",
    )  # fmt: skip


def optional_vae_input() -> io.Input:
    return io.Vae.Input(
        "vae", optional=True, tooltip="The VAE of the latent's family. Models with a fast guide need none.",
    )  # fmt: skip


def upscale_model_input() -> io.Input:
    return io.UpscaleModel.Input(
        "upscale_model", optional=True,
        tooltip="From Load Upscale Model. It enlarges the picture instead of the bundled one, which the method auto "
        "takes. The flow then adds texture, at a strength of 0.3 by default; with the bundled ones at 0.05 to "
        "latents, and none to pictures.",
    )  # fmt: skip


def maker_input() -> io.Input:
    return io.Model.Input(
        "model", optional=True,
        tooltip="The diffusion model that made the latent. It tells the latent's family; without it the node guesses.",
    )  # fmt: skip


def vae_tiling_input() -> io.Input:
    return folded(
        io.Boolean, "tiled_vae", default=False, label_on="always tiled", label_off="auto",
        tooltip="auto: the VAE works in tiles when memory runs out. Its tiles save memory and can show seams.",
    )  # fmt: skip


def seed_input() -> io.Input:
    return io.Int.Input(
        "seed", default=0, min=0, max=2**64 - 1, control_after_generate=True,
        tooltip="Seed of the noise from which fine detail grows. Each item of a batch has its own noise.",
    )  # fmt: skip


def noise_step_input() -> io.Input:
    return io.Int.Input(
        "noise_step", display_name="noise_step (-1: model's own)", default=OWN_NOISE_STEP, min=OWN_NOISE_STEP, max=999,
        tooltip="Noise in the start, 0 to 999: the higher it is, the more two seeds differ. "
        "A model works at the steps it was trained for. -1: the model's own step.",
    )  # fmt: skip


def nfe_input() -> io.Input:
    return io.Int.Input(
        "nfe", display_name="nfe (0: model's own)", default=OWN_NFE, min=OWN_NFE, max=MAX_NFE,
        tooltip="Number of function evaluations (steps) in each stage. 0: the model's own number, which is best.",
    )  # fmt: skip


def solver_input() -> io.Input:
    return folded(
        io.Combo, "solver", options=list(SOLVERS), default="euler",
        tooltip="Solver of the flow. midpoint and heun take an even nfe, rk4 a multiple of 4. dopri5 and the solvers "
        "after it choose the number themselves and need the package torchdiffeq.",
    )  # fmt: skip


def tile_input() -> io.Input:
    return folded(
        io.Combo, "tile", options=list(TILE_CHOICES), default="auto",
        tooltip="Side of the network's tiles in latents of 8 pixels. auto uses tiles above 2300 pixels. "
        "Tiles of the bundled models leave no seams. Smaller tiles take less memory and more time.",
    )  # fmt: skip


def strength_input() -> io.Input:
    return io.Float.Input(
        "strength", display_name="strength (0: model's own)", default=OWN_STRENGTH, min=OWN_STRENGTH, max=MAX_STRENGTH,
        step=0.05, optional=True,
        tooltip="How strongly the flow changes the guide. More than 1 is crisper, up to harsh; less is softer. 0: the "
        "model's own, with an upscale model 0.3, with a bundled one 0.05 for latents and none for pictures.",
    )  # fmt: skip


def tileable_input() -> io.Input:
    return folded(
        io.Combo, "tileable", options=list(TILEABLE_CHOICES), default="off", optional=True,
        tooltip="For a seamless texture, which stays seamless: x from right to left, y from bottom to top, or both. "
        "Small pictures then take several times as long.",
    )  # fmt: skip
