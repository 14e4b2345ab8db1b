"""Target sizes and the stages that lead to them."""

from __future__ import annotations

import math

from ..errors import ConfigError

MAX_SIDE = 65_536  # pixels
MAX_PIXELS = 2**28


def target_size(
    size: tuple[int, int],
    *,
    scale: float | None = None,
    target: tuple[int, int] | None = None,
    megapixels: float | None = None,
    default: float = 2.0,
    unit: int = 1,
) -> tuple[int, int]:
    """(height, width) in pixels wanted for a picture (height, width): by scale, by target (width, height), or area.

    Rounded to multiples of unit. More than one wish, a size below the picture's, and absurd sizes are refused.
    """
    wanted: tuple[float, float]
    wishes = {"scale": scale, "size": target, "megapixels": megapixels}
    given = [name for name, value in wishes.items() if value is not None]
    if len(given) > 1:
        raise ConfigError(f"Give one of scale, size or megapixels, not {' and '.join(given)}.")
    if target is not None:
        wanted = _checked_target(target)
    elif megapixels is not None:
        _check_number("megapixels", megapixels)
        ratio = math.sqrt(megapixels * 1e6 / (size[0] * size[1]))
        wanted = (size[0] * ratio, size[1] * ratio)
    else:
        ratio = default if scale is None else scale
        _check_number("scale", ratio)
        wanted = (size[0] * ratio, size[1] * ratio)
    result = tuple(max(unit, round(side / unit) * unit) if side < 2 * MAX_SIDE else MAX_SIDE + 1 for side in wanted)
    if max(result) > MAX_SIDE or result[0] * result[1] > MAX_PIXELS:
        raise ConfigError(
            f"{wanted[1]:.0f}x{wanted[0]:.0f} pixels are too many: at most {MAX_SIDE} a side and "
            f"{MAX_PIXELS // 10**6} megapixels are possible."
        )
    if result[0] < size[0] or result[1] < size[1]:
        raise ConfigError(
            f"FMBoost only enlarges: {result[1]}x{result[0]} is smaller than the {size[1]}x{size[0]} that came in."
        )
    return result[0], result[1]


def _checked_target(target: tuple[int, int]) -> tuple[int, int]:
    """(width, height) as (height, width)."""
    ok = len(target) == 2 and all(isinstance(s, int) and not isinstance(s, bool) and s > 0 for s in target)
    if not ok:
        raise ConfigError(f"size must be (width, height) in whole pixels above 0, but it is {target!r}.")
    return target[1], target[0]


def _check_number(name: str, value: float) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value <= 0:
        raise ConfigError(f"{name} must be a number above 0, but it is {value!r}.")


def stage_sizes(start: tuple[int, int], end: tuple[int, int], trained_scale: float) -> list[tuple[int, int]]:
    """Sizes (height, width) after each stage: as few as stay within the trained scale, with equal ratios."""
    ratio = max(end[0] / start[0], end[1] / start[1])
    if ratio > 1 and trained_scale <= 1:
        raise ConfigError(f"This model was trained for {trained_scale}x, so it cannot enlarge.")
    count = 1 if ratio <= 1 else max(1, math.ceil(math.log(ratio) / math.log(trained_scale) - 1e-6))
    steps = [ratio ** ((i + 1) / count - 1) for i in range(count - 1)]
    return [(max(1, round(end[0] * s)), max(1, round(end[1] * s))) for s in steps] + [end]
