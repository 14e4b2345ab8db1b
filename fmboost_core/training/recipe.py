"""Recipes: the settings of a training, read from TOML. Unknown, missing and impossible fields are named."""

from __future__ import annotations

import sys
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ..errors import ConfigError, MissingDependencyError, require
from ..families import FAMILIES
from ..metrics.distances import PATCH
from ..networks import PRESETS, NetworkConfig, config_class
from .recipes import recipe_names, recipe_text
from .sections import CONTINUING, CardSection, DataSection, LoopSection, ObjectiveSection, StartSection


@dataclass(frozen=True)
class Recipe:
    """All settings of a training.

    network: the name of a preset, or a table of fields of a configuration: its `architecture` (default "unet"), and for
        that one `UNetConfig`'s. Two fields follow from others, whatever the table says: `channels` from card.family,
        `noise_level` from objective.noise_steps.
    """

    network: NetworkConfig = PRESETS["lite"]
    data: DataSection = field(default_factory=DataSection)
    objective: ObjectiveSection = field(default_factory=ObjectiveSection)
    start: StartSection = field(default_factory=StartSection)
    loop: LoopSection = field(default_factory=LoopSection)
    card: CardSection = field(default_factory=CardSection)

    def __post_init__(self) -> None:
        require(
            self.objective.name not in CONTINUING or bool(self.start.model),
            "start.model", self.start.model, f"the trained model to go on from, for objective {self.objective.name!r}",
        )  # fmt: skip
        textured = self.objective.name == "decoded" and self.objective.texture > 0
        require(not textured or self.data.crop >= PATCH, "data.crop", self.data.crop, f"{PATCH} or above for textures")
        channels, conditioned = FAMILIES[self.card.family].channels, bool(self.objective.noise_steps)
        network: Any = self.network
        object.__setattr__(self, "network", replace(network, channels=channels, noise_level=conditioned))

    def flat(self) -> dict[str, Any]:
        """Every field by its dotted name, as JSON holds it. Checkpoints store these names: they must not change."""
        return {
            f"{name}.{key}": list(value) if isinstance(value, tuple) else value
            for name, table in asdict(self).items()
            for key, value in table.items()
        }


def load_recipe(name_or_path: str, changes: Sequence[str] = ()) -> Recipe:
    """Read a bundled recipe or a TOML file. changes: "section.field=value" in TOML, applied in order over the file."""
    try:
        known = name_or_path in recipe_names()
        text = recipe_text(name_or_path) if known else Path(name_or_path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        names = ", ".join(recipe_names())
        raise ConfigError(f"There is no recipe {name_or_path}: give a TOML file or one of {names}.") from None
    tables = _parsed(text, name_or_path)
    for change in changes:
        tables = _without_preset(tables)  # so that a change may be of a field of the preset
        _change(tables, change)
    return recipe_of(tables, name_or_path)


def recipe_of(tables: Mapping[str, Any], what: str) -> Recipe:
    """The recipe of parsed TOML. Unknown, missing and impossible fields are a `ConfigError` that names them."""
    return _build(Recipe, _without_preset(tables), what)


# --- TOML to dataclasses


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
            raise MissingDependencyError("Recipes need the package tomli: pip install tomli.") from None
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
        if where != "network":  # a network's configuration does not know that it is part of a recipe
            raise
        raise ConfigError(f"{prefix}{error}") from None


def _converted(kind: Any, value: Any, name: str) -> Any:
    """A TOML value as a field's type: a whole number is a float where one is wanted, a list a tuple."""
    if kind is NetworkConfig:
        require(isinstance(value, Mapping), name, value, "a table of fields")
        architecture = value.get("architecture", "")
        require(isinstance(architecture, str), f"{name}.architecture", architecture, "text")
        kind, value = config_class(value)
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
