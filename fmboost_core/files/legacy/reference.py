"""Specifications for checkpoints of the reference implementation (CompVis/fm-boosting).

A checkpoint is Lightning's or a bare state dict. The parameters have the same names as in `LatentUNet`. Their shapes
prove most of the architecture; `ReferenceOptions` holds what they cannot tell.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ...errors import CheckpointError, ConfigError, reason, require
from ...families import FAMILIES, families_with
from ...networks.config import UNetConfig
from ...spec import ModelSpec
from ..weight_file import Entry, some_names

# Prefixes under which the reference's trainer and the usual wrappers keep the network. The first that matches wins.
# None: the prefix does not say which weights these are.
_PREFIXES: tuple[tuple[str, str | None], ...] = (
    ("ema_model.ema_model.net.", "ema"),
    ("ema_model.ema_model.", "ema"),
    ("model.net.", "online"),
    ("net.", None),
    ("model.", None),
    ("module.", None),
    ("", None),
)
_FIRST, _BLOCK, _LAST = "input_blocks.0.0.weight", "input_blocks.1.0.in_layers.2.weight", "out.2.weight"
_NOISE_STEPS = 1000
DERIVED = ("channels", "base", "multipliers", "res_blocks", "attention_rates", "middle_attention", "heads*head_width")
ASSUMED = ("heads", "attention", "attention_layout", "family", "scale", "noise_step")


@dataclass(frozen=True)
class ReferenceOptions:
    """What the shapes of a reference checkpoint cannot tell, with the reference's defaults (configs/flow400_64-128).

    weights: "ema" or "online"; a file without these weights is refused. None takes the EMA weights if there are any,
    or else the online weights.
    heads, attention, layout (`attention_layout`): as in `UNetConfig`.
    family, scale, noise_step (0..999), name (None: the name of the file): as in `ModelSpec`.
    """

    weights: str | None = None
    heads: int = 4
    attention: str = "full"
    layout: str = "reference"
    family: str = "sd15"
    scale: float = 2.0
    name: str | None = None
    noise_step: int = 400

    def __post_init__(self) -> None:
        require(self.weights in (None, "ema", "online"), "weights", self.weights, "'ema', 'online' or None")
        require(self.family in FAMILIES, "family", self.family, " or ".join(FAMILIES))
        step = self.noise_step
        is_step = isinstance(step, int) and not isinstance(step, bool) and 0 <= step < _NOISE_STEPS
        require(is_step, "noise_step", step, "a whole number from 0 (no noise) to 999")
        self.network()

    def network(self) -> UNetConfig:
        """The configuration with these options, for the shapes to complete."""
        return UNetConfig(heads=self.heads, attention=self.attention, attention_layout=self.layout)


def read_reference(
    path: Path, found: Mapping[str, Entry], options: ReferenceOptions
) -> tuple[ModelSpec, dict[str, Entry]]:
    """The specification of a checkpoint's network, and the weights under the network's own names.

    alpha_bar is the reference's value for the noise step. Raises `CheckpointError` that names the keys missing and
    found.
    """
    kind, entries = select_weights(path, found, options.weights)
    network = _derive(path, {name: entry.shape for name, entry in entries.items()}, options.network())
    family = FAMILIES[options.family]
    if family.channels != network.channels:
        known = families_with(network.channels)
        raise CheckpointError(
            f"{path} is for latents of {network.channels} channels ({known}), not {options.family}; give the right "
            "family."
        )
    spec = ModelSpec(
        name=options.name or path.stem,
        network=network,
        family=options.family,
        latent_factor=family.scaling_factor,
        latent_shift=family.shift,
        scale=options.scale,
        noise_step=options.noise_step,
        noise_steps=(options.noise_step,),
        alpha_bar=reference_alpha_bar(options.noise_step),
        weights=kind,
    )
    return spec, entries


def reference_alpha_bar(noise_step: int) -> float:
    """alpha_bar at a noise step 0..999 in the reference: 1 at 0, 0.65390 at 400.

    The source is the table over linspace(0, 1, 1000) in its fmboost/diffusion.py.
    """
    if noise_step == 0:
        return 1.0
    return 1 / (1 + (math.tan(math.pi * noise_step / (2 * (_NOISE_STEPS - 1))) + 1e-5) ** 2)


def select_weights(path: Path, entries: Mapping[str, Entry], weights: str | None) -> tuple[str, dict[str, Entry]]:
    """The kind of the weights ("ema" or "online"), and the network's entries without their prefix.

    weights: the kind that is asked for; None takes the EMA weights first.
    """
    entries = {name.replace("_orig_mod.", ""): entry for name, entry in entries.items()}  # torch.compile adds it
    for prefix, kind in _PREFIXES:
        if prefix + _FIRST in entries and (weights is None or kind in (None, weights)):
            inside = {k.removeprefix(prefix): v for k, v in entries.items() if k.startswith(prefix)}
            return kind or weights or "ema", inside
    if any(prefix + _FIRST in entries for prefix, _ in _PREFIXES):
        raise CheckpointError(f"{path} has no {weights} weights; leave the option out to take those it has.")
    raise CheckpointError(
        f"{path} is not a model that FMBoost knows: {_FIRST} is missing, found {len(entries)} tensors"
        f" ({some_names(entries)}); take a model of FMBoost, or a checkpoint of CompVis/fm-boosting."
    )


def _derive(path: Path, shapes: Mapping[str, tuple[int, ...]], given: UNetConfig) -> UNetConfig:
    """The given configuration with all that the shapes prove. `load_strictly` checks every name and shape later."""
    pooled = [name for name in shapes if name.startswith(("pool.", "un_pool."))]
    if pooled:
        raise CheckpointError(
            f"{path} is of the reference's pool_factor variant, which is not supported (found {some_names(pooled)}); "
            "take another checkpoint."
        )
    missing = [name for name in (_FIRST, _BLOCK, _LAST) if name not in shapes]
    if missing:
        raise CheckpointError(
            f"{path} is not a whole U-Net: {some_names(missing)} missing, found {some_names(shapes)}; copy or "
            "download it again."
        )
    try:
        base = shapes[_FIRST][0]
        levels, rates = _levels(shapes, base)
        inner = next((shape[0] // 3 for k, shape in shapes.items() if k.endswith("qkv.weight")), None)
        if inner is not None and inner % given.heads:
            raise CheckpointError(
                f"{path} has attention of width {inner}, which is not a multiple of {given.heads} heads; give the "
                "right number of heads."
            )
        return replace(
            given,
            channels=shapes[_LAST][0],
            base=base,
            multipliers=tuple(level[0] for level in levels),
            res_blocks=len(levels[0]),
            attention_rates=tuple(sorted(rates)),
            middle_attention="middle_block.1.qkv.weight" in shapes,
            head_width=given.head_width if inner is None else inner // given.heads,
        )
    except (IndexError, ZeroDivisionError, ConfigError) as error:
        raise CheckpointError(
            f"{path} has shapes that no such U-Net has ({reason(error)}); take another checkpoint."
        ) from error


def _levels(shapes: Mapping[str, tuple[int, ...]], base: int) -> tuple[list[list[int]], set[int]]:
    """The multipliers of the residual blocks, level by level, and the reductions that have attention."""
    levels: list[list[int]] = [[]]
    rates = set()
    numbers = {int(m[1]) for k in shapes if (m := re.match(r"input_blocks\.(\d{1,4})\.", k))}
    for i in range(1, max(numbers) + 1):
        convolution = shapes.get(f"input_blocks.{i}.0.in_layers.2.weight")
        if convolution is None:  # a block that is not residual halves the sides and ends the level
            levels.append([])
            continue
        levels[-1].append(convolution[0] // base)
        if f"input_blocks.{i}.1.qkv.weight" in shapes:
            rates.add(2 ** (len(levels) - 1))
    return levels, rates
