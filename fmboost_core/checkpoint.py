"""From a file to a model: our safetensors with a specification, and the reference implementation's checkpoints."""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .config import FAMILIES, ModelSpec, UNetConfig, families_with
from .errors import CheckpointError, ConfigError, MissingDependencyError
from .schedule import NOISE_STEPS, alpha_bar
from .unet import LatentUNet
from .unpickle import Entry, open_weights, reason

WEIGHTS = Path(__file__).parent / "weights"
METADATA_KEY = "fmboost"
NAMES_SHOWN = 3

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
_DERIVED = ("channels", "base", "multipliers", "res_blocks", "attention_rates", "middle_attention", "heads*head_width")
_ASSUMED = ("heads", "attention", "attention_layout", "family", "scale", "noise_step")


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

    def velocity(self, x: Tensor, t: float | Tensor, guide: Tensor) -> Tensor:
        """v(x, t, guide) in x's type: x, guide (B,C,h,w) scaled latents, t a time in [0,1] or one an item (B,)."""
        times = torch.as_tensor(t, dtype=torch.float32, device=self.device).expand(x.shape[0])
        return self.network(x.to(self.device, self.dtype), times, guide.to(self.device, self.dtype)).to(x)


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


def load_model(name_or_path: str | Path) -> Model:
    """A bundled name, a path, or hf://owner/repo/path/file@revision -> the model on the CPU, in float32.

    The path is of a file of ours or of a checkpoint of the reference implementation, which is read with
    `import_reference`'s defaults. Raises `CheckpointError` that names the file and what is wrong with it.
    """
    path = _resolve(name_or_path)
    with open_weights(path) as file:
        text = file.metadata.get(METADATA_KEY)
        if text is not None:
            return _assemble(path, _specification(path, text), file.entries)
    return import_reference(path)


def _specification(path: Path, text: str) -> ModelSpec:
    try:
        return ModelSpec.from_json(text)
    except (ConfigError, RecursionError, OverflowError) as error:
        raise CheckpointError(f"{path} has a specification that does not work: {reason(error)}.") from error


def _assemble(path: Path, spec: ModelSpec, entries: Mapping[str, Entry]) -> Model:
    """The network of the specification with exactly these weights, as float32."""
    network = _matching_network(path, spec.network, {name: entry.shape for name, entry in entries.items()})
    tensors = {name: _float32(path, name, entry.read()) for name, entry in entries.items()}
    network.load_state_dict(tensors, assign=True)
    return Model(spec, network)


def _matching_network(path: Path, config: UNetConfig, found: Mapping[str, tuple[int, ...]]) -> LatentUNet:
    """The network without memory (on the meta device), once its names and shapes are found to be the file's."""
    # Each residual block has at least 8 tensors: a specification cannot ask for endlessly many of them.
    blocks = len(config.multipliers) * (2 * config.res_blocks + 1)
    if 8 * blocks > len(found):
        raise CheckpointError(
            f"{path} has {len(found)} tensors, too few for the {blocks} residual blocks of its network:"
            f" found {_some(found)}."
        )
    try:
        with torch.device("meta"):
            network = LatentUNet(config)
    except (RuntimeError, ValueError, TypeError, OverflowError) as error:
        raise CheckpointError(f"{path} describes a network that cannot be built ({reason(error)}).") from error
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    faults = _faults(expected, found)
    if faults:
        raise CheckpointError(f"{path} does not fit its network: {'; '.join(faults)}.")
    return network


def _faults(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> list[str]:
    missing = sorted(expected.keys() - found.keys())
    unexpected = sorted(found.keys() - expected.keys())
    other = [f"{k} is {found[k]}, not {expected[k]}" for k in expected if k in found and found[k] != expected[k]]
    lists = (("missing", missing), ("unexpected", unexpected), ("of another shape", other))
    return [f"{len(names)} {what} ({_some(names)})" for what, names in lists if names]


def _some(names: Iterable[str]) -> str:
    names = list(names)
    more = [f"and {len(names) - NAMES_SHOWN} more"] if len(names) > NAMES_SHOWN else []
    return ", ".join(names[:NAMES_SHOWN] + more)


def _float32(path: Path, name: str, tensor: Tensor) -> Tensor:
    """The weight as float32 in memory of its own: the file may be replaced while the model is in use."""
    if not tensor.is_floating_point():
        raise CheckpointError(f"{path} has the weight {name} as {tensor.dtype}, which is no floating-point type.")
    weight = tensor.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    _require_finite(path, name, weight)
    return weight


def _require_finite(path: Path, name: str, tensor: Tensor) -> None:
    if not torch.isfinite(tensor).all():
        raise CheckpointError(f"{path} has NaN or infinity in the weight {name}.")


# --- checkpoints of the reference implementation


def import_reference(
    path: str | Path,
    *,
    weights: str | None = None,
    heads: int = 4,
    attention: str = "full",
    layout: str = "reference",
    family: str = "sd15",
    scale: float = 2.0,
    name: str | None = None,
    noise_step: int = 400,
) -> Model:
    """A checkpoint of CompVis/fm-boosting (Lightning's or a bare state dict) -> the model, in float32.

    The shapes prove the architecture; the rest is told here, with the reference's defaults (its
    configs/flow400_64-128). weights: "ema" or "online", and where the file has no such weights that is an error;
    None takes the EMA, or else the online ones. heads, attention, layout: as in `UNetConfig`. family, scale, name
    (the file's by default), noise_step: as in `ModelSpec`; alpha_bar is the reference's own for that step.
    Raises `CheckpointError` that names the keys missing and found, `ConfigError` for an impossible argument.
    """
    path = Path(path)
    if weights not in (None, "ema", "online"):
        raise ConfigError(f"weights must be 'ema', 'online' or None, but it is {weights!r}.")
    if family not in FAMILIES:
        raise ConfigError(f"family must be one of {', '.join(FAMILIES)}, but it is {family!r}.")
    told = UNetConfig(heads=heads, attention=attention, attention_layout=layout)
    with open_weights(path) as file:
        if METADATA_KEY in file.metadata:
            raise CheckpointError(f"{path} is a model of FMBoost, whose own specification tells all of it.")
        kind, entries = _select(path, file.entries, weights)
        network = _derive(path, {name: entry.shape for name, entry in entries.items()}, told)
        if FAMILIES[family].channels != network.channels:
            known = families_with(network.channels)
            raise CheckpointError(f"{path} is for latents of {network.channels} channels ({known}), not {family}.")
        spec = ModelSpec(
            name=name or path.stem,
            network=network,
            family=family,
            latent_factor=FAMILIES[family].factor,
            latent_shift=FAMILIES[family].shift,
            scale=scale,
            noise_step=noise_step,
            noise_steps=(noise_step,),
            alpha_bar=reference_alpha_bar(noise_step),
            weights=kind,
        )
        return _assemble(path, spec, entries)


def reference_alpha_bar(noise_step: int) -> float:
    """alpha_bar of the reference's table over linspace(0, 1, 1000) (fmboost/diffusion.py): 0.65390 at 400."""
    if alpha_bar(noise_step) == 1.0:  # no noise; this also refuses impossible steps
        return 1.0
    return 1 / (1 + (math.tan(math.pi * noise_step / (2 * (NOISE_STEPS - 1))) + 1e-5) ** 2)


def _select(path: Path, entries: Mapping[str, Entry], weights: str | None) -> tuple[str, dict[str, Entry]]:
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
        f" ({_some(entries)})."
    )


def _derive(path: Path, shapes: Mapping[str, tuple[int, ...]], told: UNetConfig) -> UNetConfig:
    """What the shapes prove, over what was told. `_matching_network` then holds every name and shape against it."""
    pooled = [name for name in shapes if name.startswith(("pool.", "un_pool."))]
    if pooled:
        raise CheckpointError(
            f"{path} is of the reference's pool_factor variant, which is not supported: found {_some(pooled)}."
        )
    missing = [name for name in (_FIRST, _BLOCK, _LAST) if name not in shapes]
    if missing:
        raise CheckpointError(f"{path} is not a whole U-Net: {_some(missing)} missing, found {_some(shapes)}.")
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


# --- writing and describing


def save_model(model: Model, path: str | Path, dtype: torch.dtype | None = None) -> None:
    """Write the model as safetensors with its specification, in dtype (None: as it is), whole or not at all.

    Raises `CheckpointError` when the file cannot be written, is not named .safetensors, or a weight is not finite
    in that type; a file that was there before is then untouched.
    """
    from safetensors.torch import save

    path = Path(path)
    if path.suffix != ".safetensors":
        raise CheckpointError(f"{path} must be named .safetensors to be written.")
    tensors = {
        name: tensor.detach().to("cpu", dtype or tensor.dtype).contiguous()
        for name, tensor in model.network.state_dict().items()
    }
    _matching_network(path, model.spec.network, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
    for name, tensor in tensors.items():
        _require_finite(path, name, tensor)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(save(tensors, {METADATA_KEY: model.spec.to_json()}))
        partial.replace(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be written ({reason(error)}).") from error
    finally:
        partial.unlink(missing_ok=True)


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
        entries = file.entries if ours else _select(path, file.entries, None)[1]
        dtypes = sorted({entry.dtype for entry in entries.values()})
    return {
        "path": str(path),
        "kind": "fmboost" if ours else "reference",
        "specification": asdict(model.spec),
        "parameters": sum(p.numel() for p in model.network.parameters()),
        "dtype": ", ".join(dtypes),
        "bytes": path.stat().st_size,
        "sha256": _sha256(path),
        "derived": [] if ours else list(_DERIVED),
        "assumed": [] if ours else list(_ASSUMED),
    }


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
