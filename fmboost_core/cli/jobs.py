"""Jobs: the images to read and the files to write, planned before any work."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError, FileError, ImageError, reason
from ..files.walk import is_folder
from ..imaging.formats import WRITE_FORMATS
from ..imaging.write import check_output
from .inputs import Inputs


@dataclass(frozen=True)
class Job:
    """An image to read and the file to write."""

    source: Path
    target: Path


def names_folder(output: str) -> bool:
    """Whether an output names a folder: it is one, ends as one does, or has no suffix."""
    return is_folder(Path(output)) or output.endswith(("/", os.sep)) or not Path(output).suffix


def plan_jobs(inputs: Inputs, output: str, kind: str | None = None) -> list[Job]:
    """The jobs for inputs and an output. Makes the folders that are missing.

    kind: the suffix, without its dot, of all that goes into a folder; None: see `target_place`.
    Raises `ImageError` for a target that is an input, that two images would have, or that cannot be written, and
    `FileError` for a folder that cannot be made.
    """
    sources, folder = inputs.sources, Path(output)
    if not names_folder(output) and folder.suffix.lower() in WRITE_FORMATS and len(sources) > 1:
        raise ImageError(f"{len(sources)} pictures need a folder to go to, but {output} is one file; name a folder.")
    if names_folder(output) or (inputs.several and folder.suffix.lower() not in WRITE_FORMATS):
        jobs = [Job(source.path, folder / target_place(source.place, kind)) for source in sources]
    else:
        jobs = [Job(sources[0].path, folder)]
    _refuse_meeting(jobs)
    _refuse_overwriting_inputs(jobs)
    for job in jobs:
        make_folder_of(job.target)
        check_output(job.target)
    _refuse_meeting_without_case(jobs)
    return jobs


def target_place(place: Path, kind: str | None = None) -> Path:
    """A target's place below the output folder: the source's own, with .png behind a suffix that is not written.

    The name follows from the source alone, so that it stays whatever comes beside it: a.bmp becomes a.bmp.png.
    kind: the suffix to have instead of the own one, without its dot.
    """
    if kind is not None:
        return place.with_suffix(f".{kind}")
    return place if place.suffix.lower() in WRITE_FORMATS else place.with_name(f"{place.name}.png")


def make_folder_of(target: Path) -> None:
    """Make the folder of a file that can be written by its suffix. Raises `FileError` where that fails."""
    if target.parent.is_dir() or target.suffix.lower() not in WRITE_FORMATS:
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(
            f"The folder {target.parent} cannot be made ({reason(error)}); choose another output."
        ) from None


def _refuse_meeting(jobs: Sequence[Job], case: bool = True) -> None:
    taken: dict[str, Job] = {}
    for job in jobs:
        name = str(job.target) if case else str(job.target).casefold()
        other = taken.setdefault(name, job)
        if other is not job:
            raise ImageError(
                f"{other.source} and {job.source} would both become {job.target}; write them to two folders, or name "
                "the folder above both with --recursive, which keeps their folders."
            )


def _refuse_meeting_without_case(jobs: Sequence[Job]) -> None:
    """Refuse A.png beside a.png where the file system takes the two for one."""
    folded = {str(job.target).casefold() for job in jobs}
    if len(folded) < len(jobs) and _ignores_case(jobs[0].target.parent):
        _refuse_meeting(jobs, case=False)


def _ignores_case(folder: Path) -> bool:
    with tempfile.NamedTemporaryFile(prefix=".fmboost-case", dir=folder) as probe:
        return Path(probe.name).with_name(Path(probe.name).name.upper()).exists()


def _refuse_overwriting_inputs(jobs: Sequence[Job]) -> None:
    sources = {os.path.realpath(job.source) for job in jobs}
    for job in jobs:
        if os.path.realpath(job.target) in sources:
            raise ImageError(f"{job.target} is an input and would be overwritten; choose another output.")


def check_comparison(path: Path, jobs: Sequence[Job]) -> None:
    """Refuse a comparison of several images, over the input or output, or where it cannot be written."""
    if len(jobs) > 1:
        raise ConfigError(f"--compare shows one picture, but there are {len(jobs)}; name one picture.")
    make_folder_of(path)
    check_output(path)
    if os.path.realpath(path) in (os.path.realpath(jobs[0].source), os.path.realpath(jobs[0].target)):
        raise ImageError(f"{path} is the input or the output; name another file for the comparison.")
