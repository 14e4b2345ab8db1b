"""A device that lacks operators and number types, on a machine that has none."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

# PyTorch takes no tensor of a device that it was not built for; this one it always knows, and it holds no values.
DEVICE = torch.device("meta")


class _OnDevice(Tensor):
    """A tensor that says it is on `DEVICE`; `held` has its values."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> _OnDevice:
        made = Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            device=DEVICE, requires_grad=held.requires_grad,
        )  # fmt: skip
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} was called outside of the device")


class _FromNumbers(TorchFunctionMode):
    """`torch.tensor` and its kin give `DEVICE` no values when they make a tensor there at once."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") == DEVICE:
            return func(*args, **kwargs | {"device": "cpu"}).to(DEVICE)
        if func is Tensor.new_tensor and args[0].device == DEVICE:
            return torch.tensor(args[1], dtype=args[0].dtype).to(DEVICE)
        return func(*args, **kwargs)


class _Mode(TorchDispatchMode):
    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """PyTorch would import its compiler, which takes seconds, to keep it away from here."""
        return False


class LackingDevice(_Mode):
    """While it is entered, tensors can be moved to `DEVICE`, where the CPU computes in its place.

    missing: operators of aten by their names, which raise what Apple's raise. types: number types that it lacks.
    seen: the operators that ran on it.
    """

    def __init__(self, missing: Iterable[str] = (), types: Iterable[torch.dtype] = (torch.float64,)) -> None:
        super().__init__()
        self.missing, self.types, self.seen = frozenset(missing), frozenset(types), dict[str, int]()
        self._numbers = _FromNumbers()

    def __enter__(self) -> LackingDevice:
        self._numbers.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._numbers.__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name, here = func.overloadpacket.__name__, _mentions(args)
        target = kwargs.get("device")
        if target == DEVICE:
            kwargs["device"] = torch.device("cpu")
        elif target is not None:
            return func(*_held(args), **_held(kwargs))  # to another device
        elif not here:
            return func(*args, **kwargs)
        if name in self.missing:
            raise NotImplementedError(
                f"The operator 'aten::{name}.out' is not currently implemented for the MPS device. If you want this op "
                "to be considered for addition please comment on an issue.\nAs a temporary fix, set a variable."
            )
        self.seen[name] = self.seen.get(name, 0) + 1
        result = func(*_held(args), **_held(kwargs))
        if name.endswith("_") and isinstance(args[0], _OnDevice):
            return args[0]
        return self._placed(result)

    def _placed(self, value: Any) -> Any:
        if isinstance(value, (tuple, list)):
            return type(value)(map(self._placed, value))
        if not isinstance(value, Tensor):
            return value
        if value.dtype in self.types:
            raise TypeError(
                f"Cannot convert a MPS Tensor to {value.dtype} dtype as the MPS framework doesn't support it. Please "
                "use float32 instead."
            )
        return _OnDevice(value)


class LackingType(_Mode):
    """A CPU without an operator for a number type, as PyTorch 2.1 has no convolution in half precision."""

    def __init__(self, name: str, dtype: torch.dtype) -> None:
        super().__init__()
        self.name, self.dtype = name, dtype

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ == self.name and args[0].dtype == self.dtype:
            raise RuntimeError(f"\"slow_{self.name}_cpu\" not implemented for 'Half'")
        return func(*args, **(kwargs or {}))


def _held(value: Any) -> Any:
    """An argument, or a tuple, list or dict of them, with values in place of tensors on the device."""
    if isinstance(value, (tuple, list)):
        return type(value)(map(_held, value))
    if isinstance(value, dict):
        return {key: _held(item) for key, item in value.items()}
    return value.held if isinstance(value, _OnDevice) else value


def _mentions(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return any(map(_mentions, value))
    return isinstance(value, _OnDevice)
