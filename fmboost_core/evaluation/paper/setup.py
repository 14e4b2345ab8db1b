"""The setup of an ablation: its folders, photographs and codec."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...codecs.protocol import Codec


@dataclass(frozen=True)
class AblationSetup:
    """What tables and studies share.

    data: the folder of shards; work: networks and figures, which later runs continue from; out: tables and plots.
    photos: by name; codec_name, bf16: as typed, part of the results' settings. size: largest side of the centre crops,
    in pixels. samples: training samples of each network instead of the table's; compiled: train with torch.compile.
    report: called with lines of progress.
    """

    data: Path
    work: Path
    out: Path
    photos: Mapping[str, Path]
    codec: Codec
    codec_name: str
    bf16: bool = False
    size: int = 512
    samples: int | None = None
    compiled: bool = False
    report: Callable[[str], None] = print
