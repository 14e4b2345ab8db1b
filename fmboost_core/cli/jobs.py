"""Jobs: the images to read and the files to write, planned from files, folders and patterns before any work."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError, FileError, ImageError
from ..imaging.formats import READ_SUFFIXES, WRITE_FORMATS
from ..imaging.write import check_output


@dataclass(frozen=True)
class Job:
    """An image to read and the file to write."""

    source: Path
    target: Path


def find_inputs(patterns: Sequence[str]) -> tuple[list[Path], bool]:
    """The images of files, folders and patterns, each once, and whether they count as several (a folder does)."""
    found: list[Path] = []
    several = False
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            found += _pictures(path.iterdir(), f"The folder {path}")
            several = True
        elif os.path.lexists(path) or not glob.has_magic(pattern):
            found.append(path)
        else:
            matches = glob.glob(pattern, recursive=True)  # noqa: PTH207 (Path.glob takes no absolute pattern)
            found += _pictures(map(Path, matches), f"The pattern {pattern}")
    found = list(dict.fromkeys(found))
    return found, several or len(found) > 1


def _pictures(paths: Iterable[Path], what: str) -> list[Path]:
    """The files with the suffix of an image. Hidden files are left out, because file managers leave such ones."""
    found = [p for p in paths if p.suffix.lower() in READ_SUFFIXES and p.is_file() and not p.name.startswith(".")]
    if not found:
        raise ImageError(f"{what} has no pictures ({', '.join(READ_SUFFIXES)}).")
    return sorted(found)


def plan_jobs(patterns: Sequence[str], output: str, kind: str | None = None) -> list[Job]:
    """The jobs for inputs and an output. Makes the output folder where one is needed.

    kind: the suffix, without its dot, of all that goes into a folder; None: see `output_names`.
    Raises `ImageError` for missing inputs, for a target that is an input and for a target that cannot be written,
    `FileError` for a folder that cannot be made.
    """
    sources, several = find_inputs(patterns)
    folder = Path(output)
    if several and folder.suffix.lower() in WRITE_FORMATS and not folder.is_dir():
        raise ImageError(f"{len(sources)} pictures need a folder to go to, but {output} names one file.")
    if several or folder.is_dir() or output.endswith(("/", os.sep)):
        jobs = [Job(s, folder / name) for s, name in zip(sources, output_names(sources, kind), strict=True)]
    else:
        jobs = [Job(sources[0], folder)]
    _refuse_overwriting_inputs(jobs)
    if jobs[0].target.parent == folder:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"The folder {output} cannot be made ({error.strerror}).") from None
    for job in jobs:
        check_output(job.target)
    return jobs


def output_names(sources: Sequence[Path], kind: str | None = None) -> list[str]:
    """A file name for each source: its own if that format is written, else with .png. Equal names are numbered.

    Sources that keep their name come first: of a.bmp and a.png, a.bmp becomes a-2.png. kind: a suffix for all.
    """
    keeps = [kind is None and source.suffix.lower() in WRITE_FORMATS for source in sources]
    taken: set[str] = set()
    names: dict[int, str] = {}
    for i in sorted(range(len(sources)), key=lambda i: not keeps[i]):
        stem, suffix = sources[i].stem, sources[i].suffix if keeps[i] else f".{kind or 'png'}"
        name, number = stem + suffix, 1
        while name.casefold() in taken:  # casefold: some file systems hold A.png and a.png for one
            number += 1
            name = f"{stem}-{number}{suffix}"
        taken.add(name.casefold())
        names[i] = name
    return [names[i] for i in range(len(sources))]


def _refuse_overwriting_inputs(jobs: Sequence[Job]) -> None:
    sources = {os.path.realpath(job.source) for job in jobs}
    for job in jobs:
        if os.path.realpath(job.target) in sources:
            raise ImageError(f"{job.target} is an input and would be overwritten; choose another output.")


def unfinished(jobs: Sequence[Job]) -> list[Job]:
    """The jobs without a target yet. Images are written whole or not at all, so an existing target is finished."""
    return [job for job in jobs if not job.target.exists()]


def check_comparison(path: Path, jobs: Sequence[Job]) -> None:
    """Refuse a comparison of several images, over the input or output, or where it cannot be written."""
    if len(jobs) > 1:
        raise ConfigError(f"--compare shows one picture, but there are {len(jobs)}.")
    check_output(path)
    if os.path.realpath(path) in (os.path.realpath(jobs[0].source), os.path.realpath(jobs[0].target)):
        raise ImageError(f"{path} is the input or the output; name another file for the comparison.")
