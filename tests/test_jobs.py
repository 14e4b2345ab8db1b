"""Which images a command takes, how their results are called, and what --skip-existing trusts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from fmboost_core.cli.inputs import find_inputs
from fmboost_core.cli.jobs import Job, plan_jobs
from fmboost_core.cli.record import RECORD, judge, note_made, read_record
from fmboost_core.errors import ImageError
from fmboost_core.files.walk import walk

SETTINGS = {"seed": 0, "model": "a"}


def images(root: Path, *names: str) -> None:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2), (number, 0, 0)).save(root / name, format="PNG")


def planned(words: list[str], output: str, **options: bool) -> dict[str, str]:
    """The sources and targets, as they are typed."""
    jobs = plan_jobs(find_inputs(words, output=Path(output), **options), output)
    return {job.source.as_posix(): job.target.as_posix() for job in jobs}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- names


def test_a_name_does_not_depend_on_what_else_is_in_the_set(here: Path) -> None:
    images(here, "b/1.png", "in/x.bmp")
    assert planned(["*/1.png"], "out") == {"b/1.png": "out/b/1.png"}
    assert planned(["in"], "flat") == {"in/x.bmp": "flat/x.bmp.png"}
    images(here, "a/1.png", "in/x.png", "in/x.tif", "in/X.JPEG")
    assert planned(["*/1.png"], "out") == {"a/1.png": "out/a/1.png", "b/1.png": "out/b/1.png"}
    assert planned(["in"], "flat") == {
        "in/X.JPEG": "flat/X.JPEG", "in/x.bmp": "flat/x.bmp.png", "in/x.png": "flat/x.png",
        "in/x.tif": "flat/x.tif",
    }  # fmt: skip


@pytest.mark.parametrize("words", [["a/1.png", "b/1.png"], ["a", "b"], ["a/1.bmp", "b/1.bmp.png"]])
def test_two_images_of_one_name_are_refused_before_anything_is_made(here: Path, words: list[str]) -> None:
    images(here, "a/1.png", "b/1.png", "a/1.bmp", "b/1.bmp.png")
    with pytest.raises(ImageError, match=r"would both become out.*; write them to two folders"):
        planned(words, "out")
    assert not (here / "out").exists()


def test_names_that_differ_in_case_alone_are_refused_where_the_disk_cannot_tell(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images(here, "in/a.png", "in/A.png")
    assert len(planned(["in"], "out")) == 2
    monkeypatch.setattr("fmboost_core.cli.jobs._ignores_case", lambda folder: True)
    with pytest.raises(ImageError, match="would both become"):
        planned(["in"], "out")


def test_folders_in_folders_keep_their_structure(here: Path) -> None:
    images(here, "in/a.png", "in/x/b.png", "in/x/y/c.tif", "in/.thumbnails/d.png")
    assert planned(["in"], "out", recursive=True) == {
        "in/a.png": "out/a.png", "in/x/b.png": "out/x/b.png", "in/x/y/c.tif": "out/x/y/c.tif",
    }  # fmt: skip
    assert (here / "out/x/y").is_dir()
    assert planned(["in"], "flat") == {"in/a.png": "flat/a.png"}
    assert planned(["in/**/*.png"], "stars") == {"in/a.png": "stars/a.png", "in/x/b.png": "stars/x/b.png"}


def test_the_output_folder_is_no_input(here: Path) -> None:
    images(here, "in/a.png", "in/large/a.png", "out/b.png", "c/b.png")
    assert planned(["in"], "in/large", recursive=True) == {"in/a.png": "in/large/a.png"}
    assert planned(["*/b.png"], "out") == {"c/b.png": "out/c/b.png"}
    with pytest.raises(ImageError, match="is an input and would be overwritten"):
        planned(["in"], "in")


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("one/*.png", {"one/a[1].png": "new/a[1].png"}),  # one match, a new folder
        ("'one/*.png'", {"one/a[1].png": "new/a[1].png"}),  # as Windows hands quotes on
        ("one/*[1].png", {"one/a[1].png": "new/a[1].png"}),
        ("one/a[1].png", {"one/a[1].png": "new/a[1].png"}),
        ("s[1]/*.png", {"s[1]/b.png": "new/b.png", "s[1]/c.png": "new/c.png"}),
        ("s[1]/[bc].png", {"s[1]/b.png": "new/b.png", "s[1]/c.png": "new/c.png"}),
        ("s[[]1]/?.png", {"s[1]/b.png": "new/s[1]/b.png", "s[1]/c.png": "new/s[1]/c.png"}),
    ],
)
def test_patterns(here: Path, word: str, expected: dict[str, str]) -> None:
    images(here, "one/a[1].png", "s[1]/b.png", "s[1]/c.png", "s1/d.png", "one/.e.png")
    assert planned([word], "new") == expected
    absolute = {str(here / source): target for source, target in expected.items()}
    if not word.startswith("'"):
        assert planned([str(here / word)], "new") == absolute


def test_what_an_output_names(here: Path) -> None:
    images(here, "a.png", "b.png", "one/a.png")
    assert planned(["a.png"], "no/such/new.png") == {"a.png": "no/such/new.png"}
    assert planned(["a.png"], "newfolder") == {"a.png": "newfolder/a.png"}
    assert planned(["a.png"], "a.2024/") == {"a.png": "a.2024/a.png"}
    assert planned(["one/*"], "large.png") == {"one/a.png": "large.png"}
    assert all((here / name).is_dir() for name in ("no/such", "newfolder", "a.2024"))


# --- what is taken


def test_suffixes_of_pictures(here: Path) -> None:
    images(here, "in/a.PNG", "in/b.jfif", "in/c.JFIF", "in/d.Jpg")
    assert set(planned(["in"], "out")) == {"in/a.PNG", "in/b.jfif", "in/c.JFIF", "in/d.Jpg"}


def test_avif_is_a_picture_where_pillow_reads_it(here: Path) -> None:
    from PIL import features

    if not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    from fmboost_core.imaging.read import read_picture

    (here / "in").mkdir()
    Image.new("RGB", (8, 6), (200, 0, 0)).save(here / "in" / "a.avif")
    assert planned(["in"], "out") == {"in/a.avif": "out/a.avif.png"}
    assert read_picture(here / "in" / "a.avif").width == 8


def test_what_is_left_out_is_counted_and_named(here: Path) -> None:
    images(here, "in/a.png", "in/deep/b.png", "in/.hidden.png")
    for name in ("a.txt", "b.psd", ".DS_Store"):
        (here / "in" / name).write_text("none")
    (here / "in" / "gone.png").symlink_to("nowhere")
    notes = list(find_inputs(["in"]).notes)
    assert "4 files were left out" in notes[0] and "1 folder was not entered: in/deep; --recursive" in notes[1]
    for name in ("a.txt", "b.psd", ".hidden.png"):
        assert f"in/{name}" in notes[0] + "in/gone.png"
    assert len(list(find_inputs(["in"], recursive=True).notes)) == 1
    with pytest.raises(ImageError, match=r"has no pictures .*; --recursive also looks"):
        images(here, "only/deep/a.png")
        find_inputs(["only"])


def test_links_to_folders_are_followed_and_loops_end(here: Path) -> None:
    images(here, "elsewhere/a.png", "in/b.png", "in/x/c.png")
    (here / "in" / "link").symlink_to(here / "elsewhere", target_is_directory=True)
    for name in ("one", "two"):
        (here / "in" / "x" / name).symlink_to(here / "in", target_is_directory=True)
    found = {path.relative_to(here).as_posix() for path in walk(here / "in")}
    assert found == {"in/b.png", "in/link/a.png", "in/x/c.png"}
    assert set(planned(["in/**/*.png"], "out")) == found == set(planned(["in"], "other", recursive=True))


# --- the record


def made(job: Job, content: bytes, settings: dict[str, object] = SETTINGS) -> None:
    job.target.parent.mkdir(exist_ok=True)
    job.target.write_bytes(content)
    note_made(job, settings)


def judged(job: Job, settings: dict[str, object] = SETTINGS) -> str:
    verdict = judge([job], settings)
    return next(name for name, jobs in vars(verdict).items() if jobs)


def test_only_the_same_source_with_the_same_settings_is_done(here: Path) -> None:
    images(here, "a.png", "b.png")
    job = Job(here / "a.png", here / "out" / "a.png")
    assert judged(job) == "missing"
    made(job, b"large")
    assert judged(job) == "done"
    assert judged(job, SETTINGS | {"seed": 1}) == "changed"
    assert judged(Job(here / "b.png", job.target)) == "changed"
    os.utime(job.source, (1, 1))
    assert judged(job) == "done", "a copy of the source is the same source"
    job.source.write_bytes((here / "b.png").read_bytes())
    assert judged(job) == "changed"
    job.target.write_bytes(b"touched up by hand")
    assert judged(job) == "unknown"
    (job.target.parent / RECORD).unlink()
    assert judged(job) == "unknown"


def test_a_record_survives_cut_and_foreign_lines(here: Path) -> None:
    images(here, "a.png", "b.png")
    first, second = (Job(here / name, here / "out" / name) for name in ("a.png", "b.png"))
    made(first, b"one")
    path = here / "out" / RECORD
    with path.open("ab") as file:
        file.write(b'{"image": "b.png", "bytes": 3, "sou')
    made(second, b"two", {"seed": 7})
    made(second, b"three")
    with path.open("ab") as file:
        file.write(b'[1]\n"text"\n{"image": 1}\n\xff\n')
    assert judged(first) == judged(second) == "done"
    assert {name: facts.bytes for name, facts in read_record(here / "out").items()} == {"a.png": 3, "b.png": 5}
