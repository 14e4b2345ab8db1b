"""Devices: their choice, model and codec on one, errors of their memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module

import torch

from ..codecs.load import BUILTIN, load_codec
from ..codecs.tiny import TinyVAE
from ..errors import ConfigError, ImageError, is_out_of_memory
from ..fallback import move
from ..files.checkpoint import load_model
from ..files.locate import bundled_models
from ..files.upscale_model import LoadedUpscaleModel, identity, load_upscale_model
from ..files.weight_file import weights_digest
from ..model import Model
from ..sampling.checks import check_pair
from .arguments import AUTOMATIC, DEFAULT_MODEL, NO_UPSCALE_MODEL
from .processes import this_process

# The packages of PyTorch that bring a kind of device, which it knows only once they are imported.
_PACKAGES = {
    "privateuseone": "torch_directml",
    "npu": "torch_npu",
    "xla": "torch_xla",
    "hpu": "habana_frameworks.torch",
}


@dataclass(frozen=True)
class Tools:
    """A model and a codec on a device, and an upscale model or None.

    weights: the digest of each, for records of what was made.
    """

    model: Model
    codec: TinyVAE
    device: torch.device
    weights: dict[str, str]
    upscale_model: LoadedUpscaleModel | None = None


def load_tools(model: str | None, codec: str, device: str, dtype: str, upscale_model: str = NO_UPSCALE_MODEL) -> Tools:
    """Load model and codec by their names to a device ("auto", "cuda") in a number type ("float16").

    model: None for `default_model`. "builtin" is the codec of the model's family. upscale_model: a file, "builtin",
    "none", or `AUTOMATIC`, which is the bundled one where the model's guides are made of images.
    Raises `LatentError` for a codec of another family.
    """
    where, kind = choose_device(device), getattr(torch, dtype)
    network = load_model(model or default_model(codec))
    autoencoder = load_codec(codec, network.spec.family if codec == BUILTIN else None)
    check_pair(network, autoencoder)
    weights = {"model": weights_digest(network.network, network.guide), "codec": weights_digest(autoencoder)}
    if upscale_model == AUTOMATIC:
        upscale_model = BUILTIN if network.spec.guide == "psu" else NO_UPSCALE_MODEL
    enlarger = None
    if upscale_model != NO_UPSCALE_MODEL:
        enlarger = load_upscale_model(upscale_model, where, kind)
        weights["upscale_model"] = identity(upscale_model)[1]
    return Tools(network.to(where, kind), move(autoencoder, where, kind), where, weights, enlarger)


def default_model(codec: str) -> str:
    """The model for a codec of this name where none is named: `DEFAULT_MODEL`, or the 2x model of its latent family."""
    own = None if codec == BUILTIN else f"{load_codec(codec).family}-x2"
    return own if own in bundled_models() else DEFAULT_MODEL


def choose_device(name: str) -> torch.device:
    """The device for a name of PyTorch's, such as "cpu", "cuda:1", "xpu" or "mps", or for "auto": the fastest kind.

    Under a launcher a kind without a number is this process's device of that kind. Raises `ConfigError`, which lists
    the devices that there are, for one that is not.
    """
    if name == "auto":
        name = next((kind for kind in ("cuda", "xpu", "mps") if _count(kind)), "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"{name!r} is no name of a device; choose one of {', '.join(present_devices())}.") from None
    if device.type in _PACKAGES:
        with suppress(ImportError):
            import_module(_PACKAGES[device.type])
    if not _is_there(device):
        raise ConfigError(f"PyTorch finds no {name} device here; choose one of {', '.join(present_devices())}.")
    return _own(device) if device.index is None else device


def present_devices() -> list[str]:
    """The names that `choose_device` takes here."""
    numbered = [f"{kind}:{i}" for kind in ("cuda", "xpu") for i in range(_count(kind))]
    return ["auto", "cpu", *numbered, *(["mps"] if _count("mps") else [])]


def _count(kind: str) -> int:
    """How many devices of a kind PyTorch finds."""
    if kind == "mps":
        return int(torch.backends.mps.is_available())
    module = getattr(torch, kind, None)
    return module.device_count() if module is not None and module.is_available() else 0


def _is_there(device: torch.device) -> bool:
    if device.type in ("cuda", "xpu", "mps"):
        return 0 <= (device.index or 0) < _count(device.type)
    try:  # other kinds have no common way to be counted
        torch.zeros(1, device=device).cpu()
    except Exception:  # the packages of PyTorch that bring a device raise what they like
        return False
    return True


def _own(device: torch.device) -> torch.device:
    """The device that a launcher gives to this process, of several of the kind."""
    number = this_process(os.environ).local
    if number is None or device.type not in ("cuda", "xpu"):
        return device
    count = _count(device.type)
    if number >= count:
        raise ConfigError(f"LOCAL_RANK is {number}, but PyTorch finds {count} GPUs; start no more processes than GPUs.")
    return torch.device(device.type, number)


def wait_for(device: torch.device) -> None:
    """Wait until the device has done all that was asked of it, as GPUs run behind the program."""
    if device.type == "mps":
        torch.mps.synchronize()
    elif device.type != "cpu" and hasattr(getattr(torch, device.type, None), "synchronize"):
        getattr(torch, device.type).synchronize(device)


@contextmanager
def memory_errors(what: str) -> Iterator[None]:
    """Turn the out-of-memory errors of Python and of PyTorch's devices into an `ImageError` with advice."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise ImageError(f"{what} does not fit into memory at this size; try --tile 48 or a smaller size.") from None
