"""Inputs: the images of files, folders and patterns, each with its place below what named it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from ..errors import FileError, ImageError, reason
from ..files.walk import is_file, is_folder, walk
from ..files.weight_file import some_names
from ..imaging.formats import READ_SUFFIXES

_MAGIC = "*?["


@dataclass(frozen=True)
class Source:
    """An image to read. place: its path below the folder, or below the fixed part of the pattern, that named it."""

    path: Path
    place: Path


@dataclass
class Inputs:
    """What the inputs of a command name.

    several: whether a folder or a pattern is among them, which names any number. no_pictures, folders: the files that
    are left out because they are no images, and the folders that are not entered.
    """

    sources: list[Source] = field(default_factory=list)
    several: bool = False
    no_pictures: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)

    @property
    def notes(self) -> Iterator[str]:
        """Sentences on what is left out."""
        if self.no_pictures:
            names = some_names(map(str, self.no_pictures))
            yield f"{_counted(self.no_pictures, 'file')} left out, as no pictures by their names: {names}."
        if self.folders:
            yield (
                f"{_counted(self.folders, 'folder')} not entered: {some_names(map(str, self.folders))}; "
                "--recursive takes the pictures in them too."
            )


def _counted(paths: Sequence[Path], what: str) -> str:
    return f"{len(paths)} {what} was" if len(paths) == 1 else f"{len(paths)} {what}s were"


def find_inputs(words: Sequence[str], recursive: bool = False, output: Path | None = None) -> Inputs:
    """The images of files, folders and patterns, each path once, in the order of the words and sorted within each.

    recursive: whether folders in folders are entered. output: a folder whose own images are no inputs where it lies
    in one of the folders. Raises `ImageError` for a word that names no image, `FileError` for a locked folder.
    """
    inputs = Inputs()
    for word in words:
        path = Path(word)
        if is_folder(path):
            _add_folder(inputs, path, recursive, output)
        elif os.path.lexists(path):
            inputs.sources.append(Source(path, Path(path.name)))
        elif any(sign in word for sign in _MAGIC):
            _add_pattern(inputs, word, output)
        else:
            raise ImageError(
                f"{word} does not exist; check the name and the folder, or give a folder of pictures or a pattern "
                'such as "trip/*.jpg".'
            )
    unique: dict[Path, Source] = {}
    for source in inputs.sources:
        unique.setdefault(source.path, source)
    inputs.sources = list(unique.values())
    return inputs


def _add_folder(inputs: Inputs, folder: Path, recursive: bool, output: Path | None) -> None:
    try:
        files = sorted(walk(folder, depth=None if recursive else 1, without=output))
        inside = [] if recursive else sorted(p for p in folder.iterdir() if is_folder(p) and not p.name.startswith("."))
    except OSError as error:
        raise FileError(f"The folder {folder} cannot be read ({reason(error)}); choose another one.") from None
    pictures = _pictures(inputs, files)
    inputs.folders += [p for p in inside if output is None or os.path.realpath(p) != os.path.realpath(output)]
    if not pictures:
        advice = "--recursive also looks into the folders in it" if inputs.folders else "choose another folder"
        raise ImageError(f"The folder {folder} has no pictures ({', '.join(READ_SUFFIXES)}); {advice}.")
    inputs.several = True
    inputs.sources += [Source(path, path.relative_to(folder)) for path in pictures]


def _add_pattern(inputs: Inputs, word: str, output: Path | None) -> None:
    """A pattern's images. Names with brackets are found as they are typed, if no class of characters matches."""
    root, parts = _fixed_part(Path(word.strip("'\"")))  # Windows' shell hands quotes on
    pictures: list[Path] = []
    try:
        found = sorted(walk(root, None if "**" in parts else len(parts), _below(root, output)))
    except OSError:
        found = []
    for pattern in (parts, tuple(part.replace("[", "[[]") for part in parts)):
        matches = [path for path in found if _matches(path.relative_to(root).parts, pattern)]
        pictures = pictures or _pictures(inputs, matches)
    if not pictures:
        raise ImageError(
            f"The pattern {word} has no pictures ({', '.join(READ_SUFFIXES)}); check it against the names in {root}."
        )
    inputs.several = True
    inputs.sources += [Source(path, path.relative_to(root)) for path in pictures]


def _fixed_part(pattern: Path) -> tuple[Path, tuple[str, ...]]:
    """The folder before the first part with a wildcard, and the parts from there. A folder's own brackets are none."""
    root = Path()
    for number, part in enumerate(pattern.parts):
        if any(sign in part for sign in _MAGIC) and not is_folder(root / part):
            return root, pattern.parts[number:]
        root /= part
    return root.parent, (root.name,)


def _below(root: Path, output: Path | None) -> Path | None:
    """The output folder if it is not the root itself, whose images would be overwritten: that is refused later."""
    return None if output is None or os.path.realpath(output) == os.path.realpath(root) else output


def _matches(names: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    """Whether the names of a path fit the parts of a pattern; `**` stands for any number of folders."""
    if not pattern:
        return not names
    if pattern[0] == "**":
        rest = pattern[1:] or ("*",)
        return any(_matches(names[n:], rest) for n in range(len(names)))
    if not names or (names[0].startswith(".") and not pattern[0].startswith(".")):
        return False
    return fnmatch(names[0], pattern[0]) and _matches(names[1:], pattern[1:])


def _pictures(inputs: Inputs, paths: Iterable[Path]) -> list[Path]:
    """The images among paths. The others are noted, except the hidden files that systems and programs leave."""
    pictures = []
    for path in paths:
        is_picture, hidden = path.suffix.lower() in READ_SUFFIXES, path.name.startswith(".")
        if is_picture and not hidden and is_file(path):
            pictures.append(path)
        elif is_picture or not hidden:
            inputs.no_pictures.append(path)
    return pictures
