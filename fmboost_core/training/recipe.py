"""All that decides a training, as frozen dataclasses read from a TOML file, each field checked and named in errors."""

from __future__ import annotations

import math
import sys
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ..errors import ConfigError, MissingDependencyError, require
from ..families import FAMILIES
from ..metrics.likeness import PATCH
from ..networks.config import PRESETS, UNetConfig
from ..sampling.guide import UPSAMPLERS
from ..sampling.schedule import NOISE_STEPS
from ..spec import OBJECTIVES

RECIPES = Path(__file__).parent / "recipes"
CONTINUING = ("reflow", "decoded")  # go on from a trained flow, and end as one
OBJECTIVE_NAMES = (*OBJECTIVES, *CONTINUING)


@dataclass(frozen=True)
class Data:
    """Which crops.

    crop: side in latents; batch: crops a step, over all processes and parts together.
    upsampling: how guides are made, "psu", "bilinear" or "nearest".
    shares: how often guides of each group are drawn, such as {latent = 0.8, image = 0.2}; empty: all alike.
    """

    crop: int = 32
    batch: int = 16
    upsampling: str = "psu"
    shares: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(self.crop > 0, "data.crop", self.crop, "above 0")
        require(self.batch > 0, "data.batch", self.batch, "above 0")
        require(self.upsampling in UPSAMPLERS, "data.upsampling", self.upsampling, " or ".join(UPSAMPLERS))


@dataclass(frozen=True)
class ObjectiveRecipe:
    """What is learned (`objectives`).

    name: one of `OBJECTIVE_NAMES`. noise_step: of the start, 0 to 999 (cfm, reflow, decoded). noise_steps: the least
    and the greatest of other starts, which six in ten crops have and the network is told of; empty: none (the same
    three). octave: how many noise steps more double texture and lines; 0: they count alike (decoded).
    sigma_min: see there (cfm, fm). start_share: of times that are exactly 0 (cfm, fm). since: how much of the way stays
    as it is, 0 for none (reflow, decoded). teacher_steps: of reflow.
    decoder: the codec to decode with, named as for `encode`; texture: factor of texture and lines, more of which give
    more detail and less PSNR; lines: a further one of lines; mean: factor of the mean's error; coarse: weight of coarse
    content, which gives more PSNR and less detail; latents: factor of the latents' own texture and mean, which keep
    them what another decoder expects; window: side in latents of what is decoded (decoded).
    """

    name: str = "cfm"
    noise_step: int = 400
    noise_steps: tuple[int, ...] = ()
    octave: float = 0.0
    sigma_min: float = 0.0
    start_share: float = 0.1
    since: float = 0.0
    teacher_steps: int = 8
    decoder: str = ""
    texture: float = 1.0
    lines: float = 1.0
    mean: float = 1.0
    coarse: float = 0.0
    latents: float = 1.0
    window: int = 16

    def __post_init__(self) -> None:
        require(self.name in OBJECTIVE_NAMES, "objective.name", self.name, " or ".join(OBJECTIVE_NAMES))
        require(0 <= self.noise_step < NOISE_STEPS, "objective.noise_step", self.noise_step, "0 to 999")
        least_and_greatest = len(self.noise_steps) == 2 and self._around(*self.noise_steps)
        rule = "empty, or the least and the greatest step around noise_step"
        require(not self.noise_steps or least_and_greatest, "objective.noise_steps", self.noise_steps, rule)
        noised = self.name in ("cfm", *CONTINUING)
        require(noised or not self.noise_steps, "objective.noise_steps", self.noise_steps, f"empty with {self.name!r}")
        require(0 <= self.octave < math.inf, "objective.octave", self.octave, "0 or above and finite")
        require(0 <= self.sigma_min < 1, "objective.sigma_min", self.sigma_min, "at least 0 and below 1")
        require(0 <= self.start_share <= 1, "objective.start_share", self.start_share, "between 0 and 1")
        require(0 <= self.since <= 0.25, "objective.since", self.since, "between 0 and 0.25")
        require(1 <= self.teacher_steps <= 1000, "objective.teacher_steps", self.teacher_steps, "1 to 1000")
        for name in ("texture", "lines", "mean", "coarse", "latents"):
            value = getattr(self, name)
            require(0 <= value < math.inf, f"objective.{name}", value, "0 or above and finite")
        require(2 <= self.window <= 1024, "objective.window", self.window, "2 to 1024")
        needed = "the codec to decode with, for objective 'decoded'"
        require(self.name != "decoded" or bool(self.decoder), "objective.decoder", self.decoder, needed)

    def _around(self, least: int, greatest: int) -> bool:
        return 0 <= least <= self.noise_step <= greatest < NOISE_STEPS and least < greatest


@dataclass(frozen=True)
class Start:
    """What is there before the first step.

    model: a name or path of a trained model to start from, "" for fresh weights; also reflow's teacher.
    frozen: beginnings of parameter names that stay as they are, such as "input_blocks.0".
    """

    model: str = ""
    frozen: tuple[str, ...] = ()


@dataclass(frozen=True)
class Loop:
    """How long and how fast.

    samples: trained on in all. The learning rate rises over `warmup` steps, stays at `rate`, and falls linearly over
    the last `decay` of all steps, so that a running training can be given more samples before its decay begins.
    beta2, weight_decay: of AdamW (beta1 is 0.9); clip: of the gradient's norm, 0 for none; ema: how much of the
    averaged weights a step keeps.
    bf16: autocast; accumulate: parts that a step's batch is cut into; checkpointing: computes activations twice
    instead of keeping them; compile: torch.compile. None of the last three changes the mathematics.
    """

    samples: int = 250_000
    rate: float = 1e-3
    warmup: int = 500
    decay: float = 0.3
    beta2: float = 0.99
    weight_decay: float = 0.0
    clip: float = 1.0
    ema: float = 0.999
    seed: int = 0
    bf16: bool = True
    accumulate: int = 1
    checkpointing: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        for name in ("samples", "rate", "accumulate"):
            require(0 < getattr(self, name) < math.inf, f"loop.{name}", getattr(self, name), "above 0 and finite")
        for name in ("warmup", "weight_decay", "clip"):
            require(0 <= getattr(self, name) < math.inf, f"loop.{name}", getattr(self, name), "0 or above and finite")
        require(0 <= self.seed < 2**32, "loop.seed", self.seed, "at least 0 and below 2**32")
        for name in ("decay", "ema", "beta2"):
            require(0 <= getattr(self, name) <= 1, f"loop.{name}", getattr(self, name), "between 0 and 1")
        require(self.beta2 < 1, "loop.beta2", self.beta2, "below 1")

    def rate_at(self, step: int, steps: int) -> float:
        """Learning rate of a step counted from 0, of so many."""
        falling = max(1.0, self.decay * steps)
        return self.rate * min(1.0, (step + 1) / max(1, self.warmup), (steps - step) / falling)


@dataclass(frozen=True)
class Card:
    """What the model file says of itself: family, the latent space (a key of `config.FAMILIES`), and words."""

    family: str = "sd15"
    license: str = "unknown"
    trained_on: str = "unknown"

    def __post_init__(self) -> None:
        require(self.family in FAMILIES, "card.family", self.family, " or ".join(FAMILIES))


@dataclass(frozen=True)
class Recipe:
    """A whole training.

    network: a table of `config.UNetConfig`'s fields, or the name of one of its presets; `channels` follow from
    card.family, and `noise_level` from objective.noise_steps, whatever it says.
    """

    network: UNetConfig = PRESETS["lite"]
    data: Data = Data()
    objective: ObjectiveRecipe = ObjectiveRecipe()
    start: Start = Start()
    loop: Loop = Loop()
    card: Card = Card()

    def __post_init__(self) -> None:
        require(
            self.objective.name not in CONTINUING or bool(self.start.model),
            "start.model", self.start.model, f"the trained model to go on from, for objective {self.objective.name!r}",
        )  # fmt: skip
        textured = self.objective.name == "decoded" and self.objective.texture > 0
        require(not textured or self.data.crop >= PATCH, "data.crop", self.data.crop, f"{PATCH} or above for textures")
        channels, told = FAMILIES[self.card.family].channels, bool(self.objective.noise_steps)
        object.__setattr__(self, "network", replace(self.network, channels=channels, noise_level=told))

    def flat(self) -> dict[str, Any]:
        """Every field by its dotted name, as JSON holds it."""
        return {
            f"{name}.{key}": list(value) if isinstance(value, tuple) else value
            for name, table in asdict(self).items()
            for key, value in table.items()
        }


def recipe_names() -> list[str]:
    """The recipes that come with FMBoost."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def load_recipe(name_or_path: str, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe of ours, or a TOML file. changes: "section.field=value", in TOML, over what it says."""
    path = RECIPES / f"{name_or_path}.toml" if name_or_path in recipe_names() else Path(name_or_path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        known = ", ".join(recipe_names())
        raise ConfigError(f"There is no recipe {name_or_path}: give a TOML file or one of {known}.") from None
    tables = _parsed(text, str(path))
    for change in changes:
        tables = _without_preset(tables)  # so that a change may be of a field of the preset
        _change(tables, change)
    return recipe_of(tables, name_or_path)


def recipe_of(tables: Mapping[str, Any], what: str) -> Recipe:
    """The recipe of parsed TOML. Unknown, missing and impossible fields are a `ConfigError` that names them."""
    return _build(Recipe, _without_preset(tables), what)


def _without_preset(tables: Mapping[str, Any]) -> dict[str, Any]:
    """The tables with the network's fields where the name of a preset is."""
    network = tables.get("network")
    if not isinstance(network, str):
        return dict(tables)
    require(network in PRESETS, "network", network, " or ".join(PRESETS))
    return {**tables, "network": asdict(PRESETS[network])}


def _parsed(text: str, where: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib
        except ImportError:
            raise MissingDependencyError("Recipes need the package tomli: pip install 'fmboost[training]'.") from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where} is not TOML ({error}).") from None


def _change(tables: dict[str, Any], change: str) -> None:
    """Apply "section.field=value"; a value that is no TOML is text, so that nobody has to quote twice."""
    name, equals, text = change.partition("=")
    *sections, key = name.strip().split(".")
    require(bool(equals and key), "A change", change, "SECTION.FIELD=VALUE")
    try:
        value = _parsed(f"value = {text}", change)["value"]
    except ConfigError:
        value = text.strip()
    for section in sections:
        tables = tables.setdefault(section, {})
        require(isinstance(tables, dict), f"The {section} of {change!r}", tables, "a table to be changed by fields")
    tables[key] = value


def _build(kind: Any, table: Any, where: str) -> Any:
    """kind(**table), its tables likewise, with unknown fields and wrong types named."""
    require(isinstance(table, Mapping), where, table, "a table of fields")
    known = {f.name for f in fields(kind)}
    prefix = "" if kind is Recipe else f"{where}."
    unknown = sorted(prefix + name for name in set(table) - known)
    if unknown:
        raise ConfigError(f"A recipe has no {', '.join(unknown)}; in its place there are {', '.join(sorted(known))}.")
    types_of = typing.get_type_hints(kind)
    values = {name: _converted(types_of[name], value, f"{prefix}{name}") for name, value in table.items()}
    try:
        return kind(**values)
    except ConfigError as error:
        if kind is not UNetConfig:  # which does not know that it is part of a recipe
            raise
        raise ConfigError(f"{prefix}{error}") from None


def _converted(kind: Any, value: Any, name: str) -> Any:
    """A TOML value as a field's type: a whole number is a float where one is wanted, a list a tuple."""
    if isinstance(kind, type) and hasattr(kind, "__dataclass_fields__"):
        return _build(kind, value, name)
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        require(isinstance(value, (list, tuple)), name, value, "a list")
        return tuple(_converted(inner[0], item, name) for item in value)
    if origin is dict:
        require(isinstance(value, Mapping), name, value, "a table")
        return {key: _converted(inner[1], item, f"{name}.{key}") for key, item in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    require(type(value) is kind, name, value, words[kind])
    return value
