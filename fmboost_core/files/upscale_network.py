"""Networks of upscale models in files: compact and RRDB ones of Real-ESRGAN, and ours, which have the same names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError
from ..networks.compact import CompactNetwork
from ..networks.rrdb import RRDBNetwork
from .weight_file import Entry, load_strictly, open_weights, save_weights, sha256_of

UpscaleNetwork = CompactNetwork | RRDBNetwork
FIRST_OF_COMPACT, FIRST_OF_RRDB, GROWN = "body.0.weight", "conv_first.weight", "body.0.rdb1.conv1.weight"
RRDB_PARTS = {"conv_first", "body", "conv_body", "conv_up1", "conv_up2", "conv_hr", "conv_last"}


def is_known(path: Path) -> bool:
    """Whether a file holds a compact or an RRDB network.

    Raises `CheckpointError` for a .safetensors that is empty or cut.
    """
    try:
        with open_weights(path) as file:
            return _holds_compact(file.entries) or _holds_rrdb(file.entries)
    except CheckpointError:
        if path.suffix == ".safetensors":  # other files may be of a kind that spandrel reads
            raise
        return False


def load_upscale_network(path: Path) -> UpscaleNetwork:
    """The network of a file, on the CPU, in float32. Raises `CheckpointError` for a file of something else."""
    with open_weights(path) as file:
        entries = file.entries
        if _holds_compact(entries):
            network: UpscaleNetwork = _compact(path, entries)
        elif _holds_rrdb(entries):
            network = _rrdb(entries)
        else:
            raise CheckpointError(f"{path} holds no compact or RRDB network of Real-ESRGAN; name another file.")
        load_strictly(path, network, entries)
    return network.eval().requires_grad_(False)


def save_upscale_network(network: UpscaleNetwork, path: Path, facts: Mapping[str, str]) -> None:
    """Write a network in fp16, whole or not at all. facts: texts about it, such as its licence."""
    save_weights(path, network.state_dict(), dict(facts), torch.float16)


def describe_upscale_network(path: Path) -> dict[str, Any]:
    """Describe a file with such a network. It is loaded whole, so a file that is described also works.

    Keys: path; network ("compact" or "RRDB"); factor; parameters (their number); dtype (as stored); bytes; sha256;
    license (None where the file does not tell).
    """
    network = load_upscale_network(path)
    with open_weights(path) as file:
        dtypes, license = sorted({entry.dtype for entry in file.entries.values()}), file.metadata.get("license")
    return {
        "path": str(path),
        "network": "RRDB" if isinstance(network, RRDBNetwork) else "compact",
        "factor": network.factor,
        "parameters": sum(p.numel() for p in network.parameters()),
        "dtype": ", ".join(dtypes),
        "bytes": path.stat().st_size,
        "sha256": sha256_of(path),
        "license": license,
    }


def _holds_compact(entries: Mapping[str, Entry]) -> bool:
    first = entries.get(FIRST_OF_COMPACT)
    numbered = all(name.startswith("body.") and name.split(".")[1].isdigit() for name in entries)
    return first is not None and numbered and len(first.shape) == 4 and first.shape[1] == 3


def _holds_rrdb(entries: Mapping[str, Entry]) -> bool:
    first, grown = entries.get(FIRST_OF_RRDB), entries.get(GROWN)
    pixels = first.shape[1] if first is not None and len(first.shape) == 4 else 0
    ours = {name.split(".")[0] for name in entries} == RRDB_PARTS  # other factors have other parts
    return ours and grown is not None and len(grown.shape) == 4 and pixels in (3, 12)  # of 4x and of 2x


def _compact(path: Path, entries: Mapping[str, Entry]) -> CompactNetwork:
    last = max(int(name.split(".")[1]) for name in entries)
    weight = entries.get(f"body.{last}.weight")
    outputs = weight.shape[0] if weight is not None and len(weight.shape) == 4 else 0
    factor, width = math.isqrt(outputs // 3), entries[FIRST_OF_COMPACT].shape[0]
    if last % 2 or last < 2 or 3 * factor**2 != outputs or not factor:
        raise CheckpointError(f"{path} holds no whole compact network; copy or download it again.")
    with torch.device("meta"):
        return CompactNetwork(factor, width, last // 2 - 1)


def _rrdb(entries: Mapping[str, Entry]) -> RRDBNetwork:
    width, inputs = entries[FIRST_OF_RRDB].shape[:2]
    numbers = {name.split(".")[1] for name in entries if name.startswith("body.")}
    with torch.device("meta"):
        return RRDBNetwork(2 if inputs == 12 else 4, width, entries[GROWN].shape[0], len(numbers))
