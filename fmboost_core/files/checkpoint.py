"""From a file to a model and back: safetensors with a specification in its metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import CheckpointError, ConfigError, reason
from ..model import Model
from ..networks import NetworkConfig
from ..spec import ModelSpec
from .legacy.reference import ASSUMED, DERIVED, ReferenceOptions, read_reference, select_weights
from .legacy.unpickle import Entry
from .locate import METADATA_KEY, find_weights
from .weight_file import load_strictly, open_weights, require_fit, save_weights, sha256_of

# --- loading


def load_model(name_or_path: str | Path, ops: Any = nn) -> Model:
    """A bundled name, a path, or hf://owner/repo/path/file@revision -> the model on the CPU, in float32.

    The path is of a file of ours or of a checkpoint of the reference implementation, which is read with
    `import_reference`'s defaults. ops: what the network's layers are made from, see `LatentUNet`. Raises
    `CheckpointError` that names the file and what is wrong with it.
    """
    path = find_weights(name_or_path)
    with open_weights(path) as file:
        text = file.metadata.get(METADATA_KEY)
        if text is not None:
            return _assemble(path, _specification(path, text), file.entries, ops)
        return _assemble(path, *read_reference(path, file.entries, ReferenceOptions()), ops)


def read_spec(name_or_path: str | Path) -> ModelSpec:
    """The specification alone, without the weights: of a bundled name or a file of ours.

    Raises `CheckpointError`, also for a checkpoint of the reference implementation, which has none.
    """
    path = find_weights(name_or_path)
    with open_weights(path) as file:
        text = file.metadata.get(METADATA_KEY)
    if text is None:
        raise CheckpointError(f"{path} is no model of FMBoost; `python -m fmboost_core convert` makes one of it.")
    return _specification(path, text)


def _specification(path: Path, text: str) -> ModelSpec:
    try:
        return ModelSpec.from_json(text)
    except (ConfigError, RecursionError, OverflowError) as error:
        raise CheckpointError(f"{path} has a specification that does not work: {reason(error)}.") from error


def _assemble(path: Path, spec: ModelSpec, entries: Mapping[str, Entry], ops: Any = nn) -> Model:
    """The network of the specification with exactly these weights, as float32."""
    network = _empty_network(path, spec.network, len(entries), ops)
    load_strictly(path, network, entries)
    return Model(spec, network)


def _empty_network(path: Path, config: NetworkConfig, tensors: int, ops: Any = nn) -> nn.Module:
    """The network without memory (on the meta device), if a file with this many tensors can fill it."""
    # A specification cannot ask for a network of endless size: its file has to fill it.
    if config.fewest_tensors > tensors:
        raise CheckpointError(
            f"{path} has {tensors} tensors, too few for its network, which has {config.fewest_tensors}."
        )
    try:
        with torch.device("meta"):
            return config.build(ops)
    except (RuntimeError, ValueError, TypeError, OverflowError) as error:
        raise CheckpointError(f"{path} describes a network that cannot be built ({reason(error)}).") from error


def import_reference(path: str | Path, **options: Any) -> Model:
    """A checkpoint of CompVis/fm-boosting (Lightning's or a bare state dict) -> the model, in float32.

    options: the fields of `reference.ReferenceOptions`, what the file's shapes cannot tell. Raises `CheckpointError`
    that names the keys missing and found, `ConfigError` for an impossible option.
    """
    path, told = Path(path), ReferenceOptions(**options)
    with open_weights(path) as file:
        if METADATA_KEY in file.metadata:
            raise CheckpointError(f"{path} is a model of FMBoost, whose own specification tells all of it.")
        return _assemble(path, *read_reference(path, file.entries, told))


# --- writing and describing


def save_model(model: Model, path: str | Path, dtype: torch.dtype | None = None) -> None:
    """Write the model as safetensors with its specification, in dtype (None: as it is), whole or not at all.

    Raises `CheckpointError` when the file cannot be written, the weights are not the specification's or not finite.
    """
    path = Path(path)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.network.state_dict().items()}
    require_fit(path, _empty_network(path, model.spec.network, len(shapes)), shapes)
    save_weights(path, model.network, {METADATA_KEY: model.spec.to_json()}, dtype)


def convert(src: str | Path, dst: str | Path, *, dtype: torch.dtype | None = None, **options: Any) -> Model:
    """Write any model that can be loaded as our safetensors, in dtype (None: float32), and return it.

    options: those of `import_reference`; with any of them, src must be a checkpoint of the reference.
    """
    model = import_reference(find_weights(src), **options) if options else load_model(src)
    save_model(model, dst, dtype)
    return model


def describe(name_or_path: str | Path) -> dict[str, Any]:
    """What a model file holds, after loading it whole, so that a file that is described also works.

    Keys: path, kind ("fmboost" or "reference"), specification (a table), parameters (their number), dtype (as
    stored), bytes, sha256; derived and assumed: the names of what a reference checkpoint's shapes proved and of
    what they cannot tell, empty for a file of ours.
    """
    path = find_weights(name_or_path)
    model = load_model(path)
    with open_weights(path) as file:
        ours = METADATA_KEY in file.metadata
        entries = file.entries if ours else select_weights(path, file.entries, None)[1]
        dtypes = sorted({entry.dtype for entry in entries.values()})
    return {
        "path": str(path),
        "kind": "fmboost" if ours else "reference",
        "specification": asdict(model.spec),
        "parameters": sum(p.numel() for p in model.network.parameters()),
        "dtype": ", ".join(dtypes),
        "bytes": path.stat().st_size,
        "sha256": sha256_of(path),
        "derived": [] if ours else list(DERIVED),
        "assumed": [] if ours else list(ASSUMED),
    }
