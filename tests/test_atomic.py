"""Atomic writes: which error a failure becomes, and what is left on the disk."""

from __future__ import annotations

import pytest

from fmboost_core.errors import Cancelled, CheckpointError, FileError
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
    message = r"a\.txt cannot be written \(.*No space left on device\)\.$"
    with pytest.raises(expected, match=message), replacing(path, *options) as temporary:
        temporary.write_text("half")
        raise cause
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_errors_of_fmboost_and_of_the_program_pass_through(tmp_path):
    for error in (Cancelled("Stopped."), CheckpointError("No model."), KeyError("bug")):
        with pytest.raises(type(error)), replacing(tmp_path / "a.txt"):
            raise error
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_said(tmp_path):
    with pytest.raises(FileError, match="cannot be written"), replacing(tmp_path / "no" / "a.txt") as temporary:
        temporary.write_text("new")
