"""Target sizes, and the stages that lead to them.

Sizes are (height, width) inside the core, and (width, height) in pixels where people give them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import ConfigError
from .keywords import plain_fields

MAX_SIDE = 65_536  # pixels
MAX_PIXELS = 2**28


@dataclass(frozen=True)
class Target:
    """How large the result is to be: at most one of scale, size and megapixels.

    scale: upscale factor, above 0. size: (width, height) in pixels. megapixels: area in millions of pixels, with the
    input's aspect. stretch: whether a `size` of another aspect distorts; otherwise the input covers it, cropped at the
    centre.
    """

    scale: float | None = None
    size: tuple[int, int] | None = None
    megapixels: float | None = None
    stretch: bool = False

    def __post_init__(self) -> None:
        plain_fields(self)
        given = [name for name in ("scale", "size", "megapixels") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ConfigError(f"Give one of scale, size or megapixels, not {' and '.join(given)}.")
        for name in ("scale", "megapixels"):
            if getattr(self, name) is not None:
                _check_number(name, getattr(self, name))
        if self.size is not None:
            _check_size(self.size)

    @property
    def distorts(self) -> bool:
        """Whether the input is resized to the target as it is; otherwise it covers the target and is cropped."""
        return self.stretch or self.size is None

    def pixels(self, start: tuple[int, int], default_scale: float, unit: int = 1) -> tuple[int, int]:
        """The target's (height, width) in pixels for an input of (height, width), rounded to multiples of unit.

        default_scale: where neither scale, size nor megapixels is given. Raises `ConfigError` for a target that is
        smaller than the input, or too large.
        """
        wanted = self._wanted(start, default_scale)
        # Sides beyond the limit are not rounded: they may be infinite.
        sides = [max(unit, round(s / unit) * unit) if s < 2 * MAX_SIDE else MAX_SIDE + 1 for s in wanted]
        height, width = sides
        if max(sides) > MAX_SIDE or height * width > MAX_PIXELS:
            raise ConfigError(
                f"{wanted[1]:.0f}x{wanted[0]:.0f} pixels are too many: at most {MAX_SIDE} a side and "
                f"{MAX_PIXELS // 10**6} megapixels are possible."
            )
        if height < start[0] or width < start[1]:
            raise ConfigError(
                f"FMBoost only enlarges: {width}x{height} is smaller than the {start[1]}x{start[0]} that came in; "
                "choose a larger size."
            )
        return height, width

    def _wanted(self, start: tuple[int, int], default_scale: float) -> tuple[float, float]:
        if self.size is not None:
            return self.size[1], self.size[0]
        if self.megapixels is not None:
            ratio = math.sqrt(self.megapixels * 1e6 / (start[0] * start[1]))
        else:
            ratio = default_scale if self.scale is None else self.scale
        return start[0] * ratio, start[1] * ratio


def _check_size(size: tuple[int, int]) -> None:
    ok = (
        isinstance(size, (tuple, list))
        and len(size) == 2
        and all(isinstance(s, int) and not isinstance(s, bool) and s > 0 for s in size)
    )
    if not ok:
        raise ConfigError(f"size must be (width, height) in whole pixels above 0, but it is {size!r}.")


def _check_number(name: str, value: float) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value <= 0:
        raise ConfigError(f"{name} must be a number above 0, but it is {value!r}.")


def stage_sizes(start: tuple[int, int], end: tuple[int, int], trained_scale: float) -> list[tuple[int, int]]:
    """The (height, width) after each stage: as few stages as the trained upscale factor allows, with equal ratios."""
    ratio = max(end[0] / start[0], end[1] / start[1])
    if ratio > 1 and trained_scale <= 1:
        raise ConfigError(f"This model was trained for {trained_scale}x, so it cannot enlarge; take another model.")
    count = 1 if ratio <= 1 else max(1, math.ceil(math.log(ratio) / math.log(trained_scale) - 1e-6))
    steps = [ratio ** ((i + 1) / count - 1) for i in range(count - 1)]
    return [(max(1, round(end[0] * s)), max(1, round(end[1] * s))) for s in steps] + [end]
