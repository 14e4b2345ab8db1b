"""Atomic writes: which error a failure becomes, and what is left on the disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fmboost_core.errors import Cancelled, CheckpointError, FileError
from fmboost_core.files import atomic
from fmboost_core.files.atomic import replacing


def test_the_file_appears_at_the_end(tmp_path):
    with replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
        assert not (tmp_path / "a.txt").exists()
    assert (tmp_path / "a.txt").read_text() == "new" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("expected, options", [(FileError, ()), (CheckpointError, (CheckpointError,))])
@pytest.mark.parametrize("cause", [OSError(28, "No space left on device"), ValueError("No space left on device")])
def test_a_failure_is_an_error_for_the_kind_of_file(tmp_path, expected, options, cause):
    path = tmp_path / "a.txt"
    path.write_text("old")
    message = r"a\.txt cannot be written \(.*No space left on device\); choose another place, or make room there\.$"
    with pytest.raises(expected, match=message), replacing(path, *options) as temporary:
        temporary.write_text("half")
        raise cause
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_errors_of_fmboost_and_of_the_program_pass_through(tmp_path):
    for error in (Cancelled("Stopped."), CheckpointError("No model."), KeyError("bug")):
        with pytest.raises(type(error)), replacing(tmp_path / "a.txt"):
            raise error
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_made(tmp_path):
    with replacing(tmp_path / "no" / "such" / "a.txt") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "no" / "such" / "a.txt").read_text() == "new"


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(FileError, match=r"a\.txt cannot be written"), replacing(tmp_path / "file" / "a.txt"):
        pytest.fail("the block was begun")


KILLED = """
import os, signal, sys
from pathlib import Path
from fmboost_core.files.atomic import replacing

with replacing(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print(temporary, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(os.name != "posix", reason="other systems cannot ask whether a process lives")
def test_what_a_killed_process_leaves_is_removed_by_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, "_swept", set())
    (tmp_path / "a.txt").write_text("old")
    command = [sys.executable, "-c", KILLED, str(tmp_path / "a.txt")]
    killed = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    left = Path(killed.stdout.strip())
    assert left.read_text() == "half" and (tmp_path / "a.txt").read_text() == "old"
    mine = tmp_path / left.name.replace(left.name.split("-")[2], str(os.getpid()))
    other = tmp_path / ".fmboost-0123456789abcdef0123456789abcdef.tmp"  # an older version's
    for path in (mine, other):
        path.write_text("being written")
    with replacing(tmp_path / "b.txt") as temporary:
        temporary.write_text("new")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["a.txt", "b.txt", mine.name, other.name])
    os.utime(other, (1, 1))
    monkeypatch.setattr(atomic, "_swept", set())
    with replacing(tmp_path / "b.txt") as temporary:
        temporary.write_text("new")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["a.txt", "b.txt", mine.name])
