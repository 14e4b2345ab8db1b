"""Compact networks in files: those of Real-ESRGAN (.pth, .safetensors), and ours, which have the same names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch

from ..errors import CheckpointError
from ..networks.compact import CompactNetwork
from .weight_file import Entry, load_strictly, open_weights, save_weights

FIRST = "body.0.weight"


def is_compact(path: Path) -> bool:
    """Whether a file holds a compact network. Raises `CheckpointError` for a .safetensors that is empty or cut."""
    try:
        with open_weights(path) as file:
            return _holds_compact(file.entries)
    except CheckpointError:
        if path.suffix == ".safetensors":  # other files may be of a kind that spandrel reads
            raise
        return False


def load_compact(path: Path) -> CompactNetwork:
    """The compact network of a file, on the CPU, in float32. Raises `CheckpointError` for a file of something else."""
    with open_weights(path) as file:
        entries = file.entries
        if not _holds_compact(entries):
            raise CheckpointError(f"{path} holds no compact network of Real-ESRGAN; name another file.")
        last = max(int(name.split(".")[1]) for name in entries)
        weight = entries.get(f"body.{last}.weight")
        outputs = weight.shape[0] if weight is not None and len(weight.shape) == 4 else 0
        factor, width = math.isqrt(outputs // 3), entries[FIRST].shape[0]
        if last % 2 or last < 2 or 3 * factor**2 != outputs or not factor:
            raise CheckpointError(f"{path} holds no whole compact network; copy or download it again.")
        with torch.device("meta"):
            network = CompactNetwork(factor, width, last // 2 - 1)
        load_strictly(path, network, entries)
    return network.eval().requires_grad_(False)


def save_compact(network: CompactNetwork, path: Path, facts: Mapping[str, str]) -> None:
    """Write a compact network in fp16, whole or not at all. facts: texts about it, such as its licence."""
    save_weights(path, network.state_dict(), dict(facts), torch.float16)


def _holds_compact(entries: Mapping[str, Entry]) -> bool:
    first = entries.get(FIRST)
    numbered = all(name.startswith("body.") and name.split(".")[1].isdigit() for name in entries)
    return first is not None and numbered and len(first.shape) == 4 and first.shape[1] == 3
