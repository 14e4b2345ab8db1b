"""From a file to a model and back: safetensors with a specification in its metadata."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .config import GUIDE_KINDS, ModelSpec, UNetConfig
from .errors import CheckpointError, ConfigError, MissingDependencyError, reason
from .reference import ASSUMED, DERIVED, ReferenceOptions, read_reference, select_weights
from .unet import LatentUNet
from .unpickle import Entry
from .weight_file import WEIGHTS, load_strictly, open_weights, require_fit, save_weights, sha256_of

METADATA_KEY = "fmboost"
_ALIVE = 32  # about so many values a position and base channel are alive at once in an evaluation


class Model:
    """A network with its specification."""

    def __init__(self, spec: ModelSpec, network: LatentUNet) -> None:
        self.spec, self.network = spec, network.eval().requires_grad_(False)

    @property
    def dtype(self) -> torch.dtype:
        return next(self.network.parameters()).dtype

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Model:
        """Move the network in place; returns self."""
        self.network.to(device=device, dtype=dtype)
        return self

    def working_memory(self, positions: int, dtype: torch.dtype) -> int:
        """Bytes, about, that an evaluation over so many positions (B*h*w) takes besides the weights."""
        return positions * self.spec.network.base * _ALIVE * dtype.itemsize

    def velocity(
        self, x: Tensor, t: float | Tensor, guide: Tensor, kind: str = "latent", alpha_bar: float | None = None
    ) -> Tensor:
        """v(x, t, guide) in x's type: x, guide (B,C,h,w) scaled latents, t a time in [0,1] or one an item (B,).

        kind: what the guide was made from, one of `GUIDE_KINDS`; alpha_bar: the signal kept in the start (default: the
        model's). Networks that cannot be told ignore them.
        """
        count, config = (x.shape[0],), self.spec.network
        times = torch.as_tensor(t, dtype=torch.float32, device=self.device).expand(count)
        kinds = torch.full(count, GUIDE_KINDS.index(kind), device=self.device) if config.classes else None
        level = math.sqrt(1 - (self.spec.alpha_bar if alpha_bar is None else alpha_bar))
        levels = torch.full(count, level, device=self.device) if config.noise_level else None
        state, guide = x.to(self.device, self.dtype), guide.to(self.device, self.dtype)
        return self.network(state, times, guide, kinds, levels).to(x)


# --- finding the file


def bundled_models() -> list[str]:
    """Names of the models that come with the package, sorted. A codec's file is no model.

    A file that cannot be read is listed, so that asking for it says what is wrong with it.
    """
    return sorted(path.stem for path in WEIGHTS.glob("*.safetensors") if _may_be_model(path))


def _may_be_model(path: Path) -> bool:
    try:
        with open_weights(path) as file:
            return METADATA_KEY in file.metadata
    except CheckpointError:
        return True


def _resolve(name_or_path: str | Path) -> Path:
    """The file behind a bundled name, an hf:// address or a path; only hf:// reaches for a network."""
    name = str(name_or_path)
    if name.startswith("hf://"):
        return _download(name)
    bundled = bundled_models()
    if name in bundled:
        return WEIGHTS / f"{name}.safetensors"
    path = Path(name)
    if not _exists(path):
        raise CheckpointError(
            f"There is no model {name!r}: the bundled ones are {', '.join(bundled) or 'none'}, and a path must exist."
        )
    return path


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # no name a file could have
        return False


def _download(address: str) -> Path:
    """hf://owner/repo/path/file@revision through huggingface_hub, which keeps a cache; without @, of main."""
    location, _, revision = address.removeprefix("hf://").partition("@")
    owner, repo, file = (*location.split("/", 2), "", "")[:3]
    if not (owner and repo and file):
        raise CheckpointError(f"{address} is not of the form hf://owner/repo/path/file@revision.")
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise MissingDependencyError(f"{address} needs huggingface_hub: pip install huggingface_hub.") from None
    try:
        return Path(hf_hub_download(f"{owner}/{repo}", file, revision=revision or "main"))
    except Exception as error:  # the hub's, its HTTP client's and the disk's errors have no common base
        raise CheckpointError(f"{address} could not be fetched ({type(error).__name__}: {reason(error)}).") from error


# --- loading


def load_model(name_or_path: str | Path, ops: Any = nn) -> Model:
    """A bundled name, a path, or hf://owner/repo/path/file@revision -> the model on the CPU, in float32.

    The path is of a file of ours or of a checkpoint of the reference implementation, which is read with
    `import_reference`'s defaults. ops: what the network's layers are made from, see `LatentUNet`. Raises
    `CheckpointError` that names the file and what is wrong with it.
    """
    path = _resolve(name_or_path)
    with open_weights(path) as file:
        text = file.metadata.get(METADATA_KEY)
        if text is not None:
            return _assemble(path, _specification(path, text), file.entries, ops)
        return _assemble(path, *read_reference(path, file.entries, ReferenceOptions()), ops)


def read_spec(name_or_path: str | Path) -> ModelSpec:
    """The specification alone, without the weights: of a bundled name or a file of ours.

    Raises `CheckpointError`, also for a checkpoint of the reference implementation, which has none.
    """
    path = _resolve(name_or_path)
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


def _empty_network(path: Path, config: UNetConfig, tensors: int, ops: Any = nn) -> LatentUNet:
    """The network without memory (on the meta device), if a file with this many tensors can fill it."""
    # Each residual block has at least 8 tensors: a specification cannot ask for endlessly many of them.
    blocks = len(config.multipliers) * (2 * config.res_blocks + 1)
    if 8 * blocks > tensors:
        raise CheckpointError(f"{path} has {tensors} tensors, too few for the {blocks} residual blocks of its network.")
    try:
        with torch.device("meta"):
            return LatentUNet(config, ops)
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
    model = import_reference(_resolve(src), **options) if options else load_model(src)
    save_model(model, dst, dtype)
    return model


def describe(name_or_path: str | Path) -> dict[str, Any]:
    """What a model file holds, after loading it whole, so that a file that is described also works.

    Keys: path, kind ("fmboost" or "reference"), specification (a table), parameters (their number), dtype (as
    stored), bytes, sha256; derived and assumed: the names of what a reference checkpoint's shapes proved and of
    what they cannot tell, empty for a file of ours.
    """
    path = _resolve(name_or_path)
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
