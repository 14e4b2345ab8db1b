"""The record in an output folder: from what each of its images was made, so that a stopped run can go on.

A file of JSON lines, one for each image that was written; the last one of a name counts. A line is added after its
image is whole. So a run that is killed between the two has an image without a line, and never a line without an image.
Several processes add lines to one file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..files.walk import is_file
from ..files.weight_file import sha256_of
from .jobs import Job

RECORD = ".fmboost-record.jsonl"


@dataclass(frozen=True)
class Made:
    """How an image was made: its own size in bytes, the SHA-256 of its source, and the settings that show in it."""

    bytes: int
    source: str
    settings: Mapping[str, Any]


@dataclass
class Verdict:
    """What --skip-existing finds. missing: jobs without a target. done: those whose target is what they would make.

    changed: those whose target was made from another source or with other settings. unknown: those whose target has
    no line in the record, or is no longer the file that the line is about.
    """

    missing: list[Job] = field(default_factory=list)
    done: list[Job] = field(default_factory=list)
    changed: list[Job] = field(default_factory=list)
    unknown: list[Job] = field(default_factory=list)


def note_made(job: Job, settings: Mapping[str, Any]) -> None:
    """Add a line on the job's target to the record of its folder. Raises `OSError` where that fails."""
    made = Made(job.target.stat().st_size, sha256_of(job.source), settings)
    line = json.dumps({"image": job.target.name, **asdict(made)}) + "\n"
    path = job.target.parent / RECORD
    # One write to a file that is opened to append: lines of two processes do not mix. A line that a kill has cut off
    # stays apart by the line break in front.
    with path.open("ab", buffering=0) as file:
        file.write(("\n" + line).encode())


def read_record(folder: Path) -> dict[str, Made]:
    """The images of a folder's record by name; lines that are damaged are left out."""
    try:
        lines = (folder / RECORD).read_bytes().splitlines()
    except OSError:
        return {}
    return dict(filter(None, map(_parsed, lines)))


def _parsed(line: bytes) -> tuple[str, Made] | None:
    try:
        facts = json.loads(line)
        name = str(facts.pop("image"))
        return name, Made(**facts)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def judge(
    jobs: Sequence[Job], settings: Mapping[str, Any], progress: Callable[[int, int], None] = lambda done, total: None
) -> Verdict:
    """Compare the targets that exist with the record of their folder. It reads the sources of those that do."""
    verdict, records = Verdict(), {}
    for number, job in enumerate(jobs, start=1):
        folder = job.target.parent
        if folder not in records:
            records[folder] = read_record(folder)
        _verdict_on(job, records[folder].get(job.target.name), settings, verdict).append(job)
        progress(number, len(jobs))
    return verdict


def _verdict_on(job: Job, made: Made | None, settings: Mapping[str, Any], verdict: Verdict) -> list[Job]:
    """The list of the verdict that a job belongs to."""
    if not job.target.exists():
        return verdict.missing
    if made is None or made.bytes != job.target.stat().st_size:
        return verdict.unknown
    same = made.settings == settings and made.source == _content_of(job.source)
    return verdict.done if same else verdict.changed


def _content_of(source: Path) -> str | None:
    """The SHA-256 of a file; None for one that cannot be read, about which its job will complain."""
    try:
        return sha256_of(source) if is_file(source) else None
    except OSError:
        return None
