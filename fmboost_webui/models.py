"""Models that can be chosen, their entries in the dropdown, and the choice for a checkpoint. Knows no host."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fmboost_core.errors import CheckpointError, ConfigError
from fmboost_core.families import FAMILIES, Party, require_same_family, titles
from fmboost_core.files.checkpoint import read_spec
from fmboost_core.files.locate import bundled_models
from fmboost_core.files.walk import walk
from fmboost_core.spec import ModelSpec

AUTOMATIC = "Automatic"
SUFFIX = ".safetensors"


@dataclass(frozen=True)
class ModelFile:
    """A model that can be chosen. name: in the page. source: for `load_model`. bundled: comes with the package."""

    name: str
    source: str
    spec: ModelSpec
    bundled: bool

    @property
    def party(self) -> Party:
        """The model in `require_same_family`."""
        advice = f"choose {AUTOMATIC}, or a model for this checkpoint"
        return Party(f"the model {self.name}", self.spec.family, self.spec.network.channels, advice)


def find_models(folder: Path) -> tuple[list[ModelFile], list[str]]:
    """The bundled models and those of a folder and its subfolders, and a sentence for each file that is no model.

    The sentences can be printed on the host's console, whatever the names of the files.
    """
    bundled = bundled_models()
    own = {_own_name(path.relative_to(folder), bundled): path for path in _weight_files(folder)}
    found = [_read(name, name, True) for name in bundled]
    found += [_read(name, str(path), False) for name, path in sorted(own.items())]
    return [m for m in found if isinstance(m, ModelFile)], [_printable(m) for m in found if isinstance(m, str)]


def _weight_files(folder: Path) -> list[Path]:
    """The weight files below a folder, also behind links; none where there is no such folder."""
    files = walk(folder) if folder.is_dir() else ()
    return [path for path in files if path.suffix.lower() == SUFFIX and not path.name.startswith(".")]


def _own_name(place: Path, bundled: Sequence[str]) -> str:
    """The name of a file of one's own in the page. With its suffix where a bundled model has the name without it."""
    name = place.with_suffix("").as_posix()
    return place.as_posix() if name in bundled else name


def _printable(sentence: str) -> str:
    """A sentence with escapes in place of the characters that the console's encoding lacks."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return sentence.encode(encoding, "backslashreplace").decode(encoding)


def _read(name: str, source: str, bundled: bool) -> ModelFile | str:
    try:
        return ModelFile(name, source, read_spec(source), bundled)
    except CheckpointError as error:
        return str(error)


def bundled_entry(scale: float) -> str:
    """The dropdown's entry for the bundled models of an upscale factor."""
    return f"FMBoost {scale:g}x"


def entries(models: Iterable[ModelFile]) -> dict[str, str]:
    """Names in the dropdown, and the model of each: `AUTOMATIC` is the bundled one of the checkpoint's family."""
    named = {bundled_entry(m.spec.scale): AUTOMATIC for m in models if m.bundled}
    return named | {f"{bundled_entry(m.spec.scale)} ({m.name})": m.name for m in models if not m.bundled}


def choose_model(models: Sequence[ModelFile], entry: str, wish: str, checkpoint: Party | None) -> ModelFile:
    """The accordion's wish, or where that is `AUTOMATIC`, the model of an entry for the checkpoint's family.

    checkpoint: None where none is loaded yet; every model then fits. Raises `ConfigError` where there is no such
    model or none for this family, `LatentError` for a model of another family.
    """
    if checkpoint is not None and checkpoint.family is None:
        raise ConfigError(
            f"FMBoost has models for {_families(models)} checkpoints, but {checkpoint.what} is of another family; "
            "choose another upscaler, or another checkpoint."
        )
    name = wish if wish != AUTOMATIC else entries(models).get(entry, AUTOMATIC)
    if name == AUTOMATIC:
        return _bundled(models, entry, checkpoint)
    model = next((m for m in models if m.name == name), None)
    if model is None:
        raise ConfigError(f"There is no model {name!r}; choose one of {', '.join(m.name for m in models)}.")
    if checkpoint is not None:
        require_same_family(model.party, checkpoint)
    return model


def _bundled(models: Sequence[ModelFile], entry: str, checkpoint: Party | None) -> ModelFile:
    bundled = [m for m in models if m.bundled and bundled_entry(m.spec.scale) == entry]
    fitting = [m for m in bundled if checkpoint is None or m.party.agrees(checkpoint)]
    if not fitting:
        family = titles([checkpoint.family] if checkpoint and checkpoint.family else [])
        raise ConfigError(
            f"{entry} has no weights for {family} checkpoints, only for {_families(bundled)}; choose another upscaler, "
            "or another checkpoint."
        )
    return fitting[0]


def _families(models: Iterable[ModelFile]) -> str:
    """The families of the models, in the order of `FAMILIES`, for people."""
    known = {m.spec.family for m in models}
    return titles(name for name in FAMILIES if name in known)
