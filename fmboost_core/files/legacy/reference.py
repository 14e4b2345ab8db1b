"""Checkpoints of the public reference implementation (CompVis/fm-boosting): Lightning's, and bare state dicts.

Its network's parameter names are ours. Shapes prove most of the architecture; what they cannot is told.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ...errors import CheckpointError, ConfigError, reason
from ...families import FAMILIES, families_with
from ...networks.config import UNetConfig
from ...sampling.schedule import NOISE_STEPS, alpha_bar
from ...spec import ModelSpec
from ..weight_file import some_names
from .unpickle import Entry

# Where the reference's trainer and the usual wrappers keep the network; the first that matches wins.
# The files with the other prefixes do not say which weights they hold.
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
DERIVED = ("channels", "base", "multipliers", "res_blocks", "attention_rates", "middle_attention", "heads*head_width")
ASSUMED = ("heads", "attention", "attention_layout", "family", "scale", "noise_step")


@dataclass(frozen=True)
class ReferenceOptions:
    """What the shapes of a reference checkpoint cannot tell, with the reference's defaults (configs/flow400_64-128).

    weights: "ema" or "online", and where the file has no such weights that is an error; None takes the EMA, or else
    the online ones. heads, attention, layout: as in `UNetConfig`. family, scale, name (the file's by default),
    noise_step: as in `ModelSpec`.
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
        if self.weights not in (None, "ema", "online"):
            raise ConfigError(f"weights must be 'ema', 'online' or None, but it is {self.weights!r}.")
        if self.family not in FAMILIES:
            raise ConfigError(f"family must be one of {', '.join(FAMILIES)}, but it is {self.family!r}.")
        self.network()

    def network(self) -> UNetConfig:
        """A configuration with what was told, for the shapes to complete."""
        return UNetConfig(heads=self.heads, attention=self.attention, attention_layout=self.layout)


def read_reference(
    path: Path, found: Mapping[str, Entry], told: ReferenceOptions
) -> tuple[ModelSpec, dict[str, Entry]]:
    """The specification of a checkpoint's network, and its weights under the network's own names.

    alpha_bar is the reference's own for its noise step. Raises `CheckpointError` that names the keys missing and
    found.
    """
    kind, entries = select_weights(path, found, told.weights)
    network = _derive(path, {name: entry.shape for name, entry in entries.items()}, told.network())
    family = FAMILIES[told.family]
    if family.channels != network.channels:
        known = families_with(network.channels)
        raise CheckpointError(f"{path} is for latents of {network.channels} channels ({known}), not {told.family}.")
    spec = ModelSpec(
        name=told.name or path.stem,
        network=network,
        family=told.family,
        latent_factor=family.scaling_factor,
        latent_shift=family.shift,
        scale=told.scale,
        noise_step=told.noise_step,
        noise_steps=(told.noise_step,),
        alpha_bar=reference_alpha_bar(told.noise_step),
        weights=kind,
    )
    return spec, entries


def reference_alpha_bar(noise_step: int) -> float:
    """alpha_bar of the reference's table over linspace(0, 1, 1000) (fmboost/diffusion.py): 0.65390 at 400."""
    if alpha_bar(noise_step) == 1.0:  # no noise; this also refuses impossible steps
        return 1.0
    return 1 / (1 + (math.tan(math.pi * noise_step / (2 * (NOISE_STEPS - 1))) + 1e-5) ** 2)


def select_weights(path: Path, entries: Mapping[str, Entry], weights: str | None) -> tuple[str, dict[str, Entry]]:
    """Which weights these are ("ema" or "online"), and the network's own without their prefix."""
    entries = {name.replace("_orig_mod.", ""): entry for name, entry in entries.items()}  # of torch.compile
    for prefix, kind in _PREFIXES:
        if prefix + _FIRST in entries and (weights is None or kind in (None, weights)):
            inside = {k.removeprefix(prefix): v for k, v in entries.items() if k.startswith(prefix)}
            return kind or weights or "ema", inside
    if any(prefix + _FIRST in entries for prefix, _ in _PREFIXES):
        raise CheckpointError(f"{path} has no {weights} weights, only the other ones.")
    raise CheckpointError(
        f"{path} is not a model that FMBoost knows: {_FIRST} is missing, found {len(entries)} tensors"
        f" ({some_names(entries)})."
    )


def _derive(path: Path, shapes: Mapping[str, tuple[int, ...]], told: UNetConfig) -> UNetConfig:
    """What the shapes prove, over what was told. `load_strictly` then holds every name and shape against it."""
    pooled = [name for name in shapes if name.startswith(("pool.", "un_pool."))]
    if pooled:
        raise CheckpointError(
            f"{path} is of the reference's pool_factor variant, which is not supported: found {some_names(pooled)}."
        )
    missing = [name for name in (_FIRST, _BLOCK, _LAST) if name not in shapes]
    if missing:
        raise CheckpointError(
            f"{path} is not a whole U-Net: {some_names(missing)} missing, found {some_names(shapes)}."
        )
    try:
        base = shapes[_FIRST][0]
        levels, rates = _levels(shapes, base)
        inner = next((shape[0] // 3 for k, shape in shapes.items() if k.endswith("qkv.weight")), None)
        if inner is not None and inner % told.heads:
            raise CheckpointError(f"{path} has attention {inner} wide, which {told.heads} heads cannot share.")
        return replace(
            told,
            channels=shapes[_LAST][0],
            base=base,
            multipliers=tuple(level[0] for level in levels),
            res_blocks=len(levels[0]),
            attention_rates=tuple(sorted(rates)),
            middle_attention="middle_block.1.qkv.weight" in shapes,
            head_width=told.head_width if inner is None else inner // told.heads,
        )
    except (IndexError, ZeroDivisionError, ConfigError) as error:
        raise CheckpointError(f"{path} has no shapes of such a U-Net ({reason(error)}).") from error


def _levels(shapes: Mapping[str, tuple[int, ...]], base: int) -> tuple[list[list[int]], set[int]]:
    """The multiplier of each residual block, level by level, and the reductions that have attention."""
    levels: list[list[int]] = [[]]
    rates = set()
    numbers = {int(m[1]) for k in shapes if (m := re.match(r"input_blocks\.(\d{1,4})\.", k))}
    for i in range(1, max(numbers) + 1):
        convolution = shapes.get(f"input_blocks.{i}.0.in_layers.2.weight")
        if convolution is None:  # what is no residual block halves the sides and ends the level
            levels.append([])
            continue
        levels[-1].append(convolution[0] // base)
        if f"input_blocks.{i}.1.qkv.weight" in shapes:
            rates.add(2 ** (len(levels) - 1))
    return levels, rates
