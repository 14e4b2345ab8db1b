"""The bundled weights: whether each file is there, and is the one that was published."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from ...codecs.load import load_codec
from ...errors import CheckpointError
from ...files import locate
from ...files.checkpoint import load_model
from ...files.upscale_network import load_upscale_network
from ...files.weight_file import sha256_of
from ..console import one_line
from .finding import PROBLEM, Finding

# What reads the files of each folder.
_LOADERS: dict[str, Callable[[Path], object]] = {
    "models": load_model, "codecs": load_codec, "upscale_models": load_upscale_network,
}  # fmt: skip
_RESTORE = "restore it (`git checkout` in a clone), or install FMBoost again"


def weights() -> Iterator[Finding]:
    """One finding for all files that are whole, and a problem for each that is not."""
    folder = locate.BUNDLED_MODELS.parent
    published = _checksums(folder / "README.md")
    files = {path.relative_to(folder).as_posix() for path in folder.glob("*/*.safetensors")}
    whole = []
    for place in sorted({*published, *files}):
        fault = _fault(folder / place, published.get(place))
        if fault is None:
            whole.append(place)
        else:
            yield Finding("weights", fault, PROBLEM)
    names = {kind: [Path(place).stem for place in whole if place.startswith(f"{kind}/")] for kind in _LOADERS}
    found = "; ".join(
        f"{len(stems)} {_called(kind, len(stems))} whole: {', '.join(stems)}" for kind, stems in names.items() if stems
    )
    if found:
        yield Finding("weights", found, figures=names)
    elif not files:
        yield Finding("weights", f"no models in {folder}", PROBLEM, "install FMBoost again")


def _called(folder: str, count: int) -> str:
    name = folder.replace("_", " ")
    return name.removesuffix("s") if count == 1 else name


def _checksums(index: Path) -> dict[str, str]:
    """The SHA-256 of each published file, by its place; empty where the index is missing."""
    try:
        text = index.read_text(encoding="utf-8")
    except OSError:
        return {}
    return {place: checksum for checksum, place in re.findall(r"(?m)^    ([0-9a-f]{64})  (\S+)$", text)}


def _fault(path: Path, checksum: str | None) -> str | None:
    """What is wrong with a file and what to do; None if nothing is."""
    if not path.exists():
        return f"{path} is missing; {_RESTORE}"
    if checksum is not None and sha256_of(path) == checksum:
        return None
    try:
        _LOADERS.get(path.parent.name, load_model)(path)
    except CheckpointError as error:
        return one_line(error).rstrip(".")
    return None if checksum is None else f"{path} can be loaded, but is not the published file; {_RESTORE}"
