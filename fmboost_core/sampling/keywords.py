"""The keywords that `boost`, `flow` and `upscale_image` share, and the objects they stand for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from torch import Tensor

    from .hooks import Stage


class FlowKeywords(TypedDict, total=False):
    """The fields of `SamplingOptions` and `Hooks`; halo is the former name of overlap."""

    nfe: int | None
    solver: str
    tolerance: float
    noise_step: int | None
    strength: float | None
    upsample: str | None
    tile: int | str | None
    overlap: int | None
    halo: int | None
    tileable: str | None
    progress: Callable[[int, int], None] | None
    cancelled: Callable[[], bool] | None
    on_state: Callable[[float, Tensor], None] | None
    on_stage: Callable[[Stage], None] | None


class Keywords(FlowKeywords, total=False):
    """The fields of `Target` besides."""

    scale: float | None
    size: tuple[int, int] | None
    megapixels: float | None
    stretch: bool


def plain_fields(record: Any) -> None:
    """Make the fields of a frozen dataclass `plain`, at its creation."""
    for field in fields(record):
        object.__setattr__(record, field.name, plain(getattr(record, field.name)))


def plain(value: Any) -> Any:
    """A scalar of NumPy or PyTorch, alone or in a tuple or list, as Python's; any other value as it is."""
    if isinstance(value, (tuple, list)):
        return type(value)(map(plain, value))
    return value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value


def grouped(keywords: Mapping[str, Any], *kinds: type[Any]) -> list[Any]:
    """The keywords as one object of each kind, in order. Raises `TypeError` for a keyword that no kind has."""
    left = dict(keywords)
    if left.get("halo") is not None:
        left["overlap"] = left.pop("halo")
    left.pop("halo", None)
    objects = [kind(**{f.name: left.pop(f.name) for f in fields(kind) if f.name in left}) for kind in kinds]
    if left:
        known = ", ".join(f.name for kind in kinds for f in fields(kind))
        raise TypeError(f"{next(iter(left))!r} is not a keyword of this function; the keywords are {known}.")
    return objects
