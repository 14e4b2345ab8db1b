"""The studies by name: ablations that are no table of networks."""

from __future__ import annotations

from collections.abc import Callable

from .codec_by_size import codec_by_size
from .images import images_by_nfe, trajectory
from .setup import AblationSetup
from .timing import timing

STUDIES: dict[str, Callable[[AblationSetup], None]] = {
    "codec": codec_by_size, "timing": timing, "pictures": images_by_nfe, "trajectory": trajectory,
}  # fmt: skip
