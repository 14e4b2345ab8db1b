"""Steps on a device that lacks an operator or a number type: they are done in float32, or else on the CPU.

Apple's, Intel's and DirectML's devices lack some of PyTorch's operators and number types, and which ones depends on the
version. So no list of them is kept: a step is tried, and what its device refuses goes to the next place.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from .errors import FMBoostWarning, reason

# No two devices raise the same exception. Another error that is taken for one of these comes back from the CPU.
_SAID = re.compile(
    r"not (currently |yet )?(implemented|supported)|n[o']t support|only supported|unsupported|_NOT_SUPPORTED"
    r"|could not run 'aten",
    re.IGNORECASE,
)


_Module = TypeVar("_Module", bound=nn.Module)


class Place(NamedTuple):
    """Where a step is done, and in which number type."""

    device: torch.device
    dtype: torch.dtype


_found: dict[tuple[str, Place], Place] = {}  # the place of a step that cannot be done where its tensors are


def with_fallback(
    step: str, function: Callable[..., Tensor], *inputs: Tensor, module: nn.Module | None = None
) -> Tensor:
    """function(*inputs), where the inputs' device can do it; otherwise in float32, or else on the CPU.

    The result is where the first input is, and of its type if it holds floats. The first time, an `FMBoostWarning`
    tells of it; from then on the step goes to its new place at once.

    step: the function's name in that sentence. function: without side effects, because it may run twice.
    module: whose weights the function uses, wherever they are. They decide on the place, and move there to stay.
    """
    home, weights = inputs[0], None if module is None else next(module.parameters(), None)
    first = Place(home.device, home.dtype) if weights is None else Place(weights.device, weights.dtype)
    known = _found.get((step, first))
    refusal: Exception = NotImplementedError(step)
    for place in _places(first) if known is None else [known]:
        try:
            result = function(*inputs) if place == first else _at(place, function, inputs, module)
        except (NotImplementedError, RuntimeError, TypeError) as error:
            if not is_unsupported(error):
                raise
            refusal = error
            continue
        if place == first:
            return result
        if known is None:
            _found[step, first] = place
            _tell(step, first, place, refusal)
        return result.to(home.device, home.dtype if result.is_floating_point() else result.dtype)
    raise refusal


def move(module: _Module, device: torch.device | str | None, dtype: torch.dtype | None) -> _Module:
    """The module, moved in place to a device and a type; to float32, with a warning, where the device lacks that."""
    try:
        module.to(device=device, dtype=dtype)
    except (NotImplementedError, RuntimeError, TypeError) as error:
        if dtype in (None, torch.float32) or not is_unsupported(error):
            raise
        module.to(device=device, dtype=torch.float32)
        place = Place(next(module.parameters()).device, torch.float32)
        _tell("holding the weights", Place(place.device, dtype), place, error)
    return module


def is_unsupported(error: BaseException) -> bool:
    """Whether an error says that a device lacks an operator or a number type; there is no common exception."""
    return isinstance(error, NotImplementedError) or bool(_SAID.search(str(error)))


def _places(first: Place) -> list[Place]:
    """The places to try, in order. Numbers that are no floats keep their type."""
    wide = torch.float32 if first.dtype.is_floating_point else first.dtype
    return list(dict.fromkeys([first, Place(first.device, wide), Place(torch.device("cpu"), wide)]))


def _at(place: Place, function: Callable[..., Tensor], inputs: tuple[Tensor, ...], module: nn.Module | None) -> Tensor:
    if module is not None:
        module.to(*place)
    return function(*(x.to(place.device, place.dtype if x.is_floating_point() else x.dtype) for x in inputs))


def _tell(step: str, first: Place, place: Place, refusal: Exception) -> None:
    where = "the CPU does it instead" if place.device != first.device else "it is done in float32"
    name = str(first.dtype).removeprefix("torch.")
    said = reason(refusal).split(". ")[0]  # Apple's goes on with advice that helps nobody here
    message = f"{step} is not possible on {first.device.type} in {name} ({said}), so {where}."
    warnings.warn(message[0].upper() + message[1:], FMBoostWarning, stacklevel=3)
