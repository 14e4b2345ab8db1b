"""Model files: loading, importing from the reference implementation, saving, converting and describing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from ..errors import CheckpointError, ConfigError, reason
from ..model import Model
from ..networks import GuideConfig, NetworkConfig, build_network
from ..networks.guide import GuideNetwork
from ..spec import ModelSpec
from .legacy.reference import ASSUMED, DERIVED, ReferenceOptions, read_reference, select_weights
from .locate import find_weights
from .weight_file import Entry, load_strictly, open_weights, require_fit, save_weights, sha256_of

METADATA_KEY = "fmboost"  # of the specification in a file's metadata
GUIDE = "guide."  # prefix of the guide network's weights

Network = TypeVar("Network", bound=nn.Module)

# --- loading


def load_model(name_or_path: str | Path, ops: Any = nn) -> Model:
    """Load a model on the CPU, in float32: a bundled name, a path or hf://owner/repo/path/file@revision.

    The file is a model of FMBoost, or a checkpoint of the reference implementation, which is read with the defaults
    of `import_reference`. ops: the module that makes the network's layers, see `LatentUNet`. Raises `CheckpointError`
    that names the file and what is wrong with it.
    """
    path = find_weights(name_or_path)
    with open_weights(path) as file:
        text = file.metadata.get(METADATA_KEY)
        if text is not None:
            return _assemble(path, _specification(path, text), file.entries, ops)
        return _assemble(path, *read_reference(path, file.entries, ReferenceOptions()), ops)


def read_spec(name_or_path: str | Path) -> ModelSpec:
    """Read the specification of a model of FMBoost without its weights. The name or path is as in `load_model`.

    Raises `CheckpointError`, also for a checkpoint of the reference implementation, which has no specification.
    """
    path = find_weights(name_or_path)
    with open_weights(path) as file:
        text = file.metadata.get(METADATA_KEY)
    if text is None:
        raise CheckpointError(f"{path} is no model of FMBoost; `fmboost convert` makes one of it.")
    return _specification(path, text)


def _specification(path: Path, text: str) -> ModelSpec:
    try:
        return ModelSpec.from_json(text)
    except (ConfigError, RecursionError, OverflowError) as error:
        raise CheckpointError(
            f"{path} has a specification that does not work ({reason(error)}); update FMBoost, or take another file."
        ) from error


def _assemble(path: Path, spec: ModelSpec, entries: Mapping[str, Entry], ops: Any = nn) -> Model:
    """Build the network of the specification with exactly these weights, as float32."""
    guide = None
    if spec.fast is not None:
        own = {name.removeprefix(GUIDE): entry for name, entry in entries.items() if name.startswith(GUIDE)}
        entries = {name: entry for name, entry in entries.items() if not name.startswith(GUIDE)}
        guide = empty_guide(path, spec.fast, len(own))
        load_strictly(path, guide, own)
    twin = _empty_network(path, spec.network, len(entries))
    network = twin if ops is nn else _empty_network(path, spec.network, len(entries), ops)
    load_strictly(path, network, entries, twin)
    return Model(spec, network, guide)


def empty_guide(path: Path, config: GuideConfig, tensors: int) -> GuideNetwork:
    """Build the guide network on the meta device, without memory, if a file with this many tensors can fill it."""
    if config.fewest_tensors > tensors:
        raise CheckpointError(
            f"{path} has {tensors} tensors of its guide network, which has at least {config.fewest_tensors}; copy or "
            "download it again."
        )
    return _on_meta(path, lambda: GuideNetwork(config))


def _empty_network(path: Path, config: NetworkConfig, tensors: int, ops: Any = nn) -> nn.Module:
    """Build the network on the meta device, without memory, if a file with this many tensors can fill it."""
    # A hostile specification can ask for a network of any size.
    if config.fewest_tensors > tensors:
        raise CheckpointError(
            f"{path} has {tensors} tensors, too few for its network, which has at least {config.fewest_tensors}; copy "
            "or download it again."
        )
    return _on_meta(path, lambda: build_network(config, ops))


def _on_meta(path: Path, build: Callable[[], Network]) -> Network:
    """A network on the meta device; `CheckpointError` where that cannot be."""
    try:
        with torch.device("meta"):
            return build()
    except (RuntimeError, ValueError, TypeError, OverflowError) as error:
        raise CheckpointError(
            f"{path} describes a network that cannot be built ({reason(error)}); take another file."
        ) from error


def import_reference(path: str | Path, **options: Any) -> Model:
    """Load a checkpoint of CompVis/fm-boosting, Lightning's or a bare state dict, in float32.

    options: the fields of `ReferenceOptions`, which the shapes in the file cannot tell. Raises `CheckpointError` that
    names the keys missing and found, and `ConfigError` for an impossible option.
    """
    path, given = Path(path), ReferenceOptions(**options)
    with open_weights(path) as file:
        if METADATA_KEY in file.metadata:
            advice = f"leave out {', '.join(options)}" if options else "load it as it is"
            raise CheckpointError(f"{path} is a model of FMBoost, whose own specification says what it is; {advice}.")
        return _assemble(path, *read_reference(path, file.entries, given))


# --- writing and describing


def save_model(model: Model, path: str | Path, dtype: torch.dtype | None = None) -> None:
    """Write the model as safetensors with its specification, in dtype (None: as it is), whole or not at all.

    Raises `CheckpointError` when the file cannot be written, or the weights do not fit the specification or are not
    finite.
    """
    path = Path(path)
    weights = model.network.state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    require_fit(path, _empty_network(path, model.spec.network, len(shapes)), shapes)
    if model.guide is not None:
        weights |= {GUIDE + name: tensor for name, tensor in model.guide.state_dict().items()}
    save_weights(path, weights, {METADATA_KEY: model.spec.to_json()}, dtype)


def convert(src: str | Path, dst: str | Path, *, dtype: torch.dtype | None = None, **options: Any) -> Model:
    """Write any model that can be loaded as a model file of FMBoost, in dtype (None: float32), and return it.

    options: those of `import_reference`. With any of them, src must be a checkpoint of the reference implementation.
    """
    model = import_reference(find_weights(src), **options) if options else load_model(src)
    save_model(model, dst, dtype)
    return model


def describe(name_or_path: str | Path) -> dict[str, Any]:
    """Describe a model file. It is loaded whole, so a file that is described also works.

    Keys: path; kind ("fmboost" or "reference"); specification (a table); parameters (their number); dtype (as
    stored); bytes; sha256; derived and assumed (the fields that a reference checkpoint's shapes prove, and those
    that they cannot tell; empty for a model of FMBoost).
    """
    path = find_weights(name_or_path)
    model = load_model(path)
    with open_weights(path) as file:
        is_ours = METADATA_KEY in file.metadata
        entries = file.entries if is_ours else select_weights(path, file.entries, None)[1]
        dtypes = sorted({entry.dtype for entry in entries.values()})
    return {
        "path": str(path),
        "kind": "fmboost" if is_ours else "reference",
        "specification": asdict(model.spec),
        "parameters": sum(p.numel() for part in (model.network, model.guide) if part for p in part.parameters()),
        "dtype": ", ".join(dtypes),
        "bytes": path.stat().st_size,
        "sha256": sha256_of(path),
        "derived": [] if is_ours else list(DERIVED),
        "assumed": [] if is_ours else list(ASSUMED),
    }
