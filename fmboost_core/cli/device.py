"""Devices: their choice, model and codec on one, errors of their memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from ..codecs.load import BUILTIN, load_codec
from ..codecs.tiny import TinyVAE
from ..errors import ConfigError, ImageError, is_out_of_memory
from ..fallback import move
from ..files.checkpoint import load_model
from ..model import Model
from ..sampling.checks import check_pair
from .processes import this_process


@dataclass(frozen=True)
class Tools:
    """A model and a codec on a device."""

    model: Model
    codec: TinyVAE
    device: torch.device


def load_tools(model: str, codec: str, device: str, dtype: str) -> Tools:
    """Load model and codec by their names to a device ("auto", "cuda") in a number type ("float16").

    "builtin" is the codec of the model's family. Raises `LatentError` for a codec of another family.
    """
    where, kind = choose_device(device), getattr(torch, dtype)
    network = load_model(model)
    autoencoder = load_codec(codec, network.spec.family if codec == BUILTIN else None)
    check_pair(network, autoencoder)
    return Tools(network.to(where, kind), move(autoencoder, where, kind), where)


def choose_device(name: str) -> torch.device:
    """The device for "cpu", "cuda", "mps" or "auto" (the fastest of them), or for a numbered one such as "cuda:1".

    Under a launcher "cuda" is the GPU of this process. Raises `ConfigError` for a device that PyTorch does not find.
    """
    if name.startswith("cuda:"):
        return torch.device(name)
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, there in present.items() if there)
    if not present[name]:
        raise ConfigError(f"This PyTorch finds no {name} device here; use --device cpu or --device auto.")
    return _own_gpu() if name == "cuda" else torch.device(name)


def _own_gpu() -> torch.device:
    number, count = this_process(os.environ).local, torch.cuda.device_count()
    if number is None:
        return torch.device("cuda")
    if number >= count:
        raise ConfigError(f"LOCAL_RANK is {number}, but PyTorch finds {count} GPUs; start no more processes than GPUs.")
    return torch.device("cuda", number)


@contextmanager
def memory_errors(what: str) -> Iterator[None]:
    """Turn the out-of-memory errors of Python and of PyTorch's devices into an `ImageError` with advice."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise ImageError(f"{what} does not fit into memory at this size; try --tile 64 or a smaller size.") from None
