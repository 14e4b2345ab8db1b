"""Names that the console's encoding lacks, and names that are no text, in all commands."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from fmboost_core.cli import app
from fmboost_core.files.checkpoint import load_model

NO_TEXT = os.fsdecode(b"\xff\xf0")
NAMES = ("テスト", "😀", "é", NO_TEXT)
ENCODINGS = ("cp1252", "gbk", "ascii", "utf-8")
SMALL = (
    "network.base=8", "network.multipliers=[1,2]", "network.res_blocks=1", "data.crop=4", "data.batch=4",
    "loop.samples=8", "loop.bf16=false",
)  # fmt: skip

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command on a console of an encoding; returns its exit code and what the console got."""

    def run(encoding: str, *words: object) -> tuple[int, str]:
        console = io.BytesIO()
        for name in ("stdout", "stderr"):
            monkeypatch.setattr(sys, name, io.TextIOWrapper(console, encoding, errors="strict", write_through=True))
        try:
            return app.main([*map(str, words)]), console.getvalue().decode(encoding)
        except SystemExit as stop:
            return int(str(stop.code)), console.getvalue().decode(encoding)

    return run


@pytest.fixture
def folder(places: list[str], tmp_path: Path) -> Path:
    """Pictures, a model and a codec under every name."""
    if sys.platform != "linux":
        pytest.skip("other systems have no names that are no text")
    (tmp_path / "in").mkdir()
    Image.effect_noise((64, 48), 40).convert("RGB").save(tmp_path / "plain.png")
    for name in NAMES:
        (tmp_path / "in" / f"{name}.png").write_bytes((tmp_path / "plain.png").read_bytes())
        for kind in ("tiny", "codec"):
            path = tmp_path / f"{kind}{name}.safetensors"
            path.write_bytes((tmp_path / f"{kind}.safetensors").read_bytes())
    return tmp_path


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_batch_goes_on_whatever_the_names(folder: Path, run: Run, encoding: str) -> None:
    tools = ("--model", folder / "tinyテスト.safetensors", "--codec", folder / "codecé.safetensors", "--nfe", 1)
    (folder / "in" / "壊れた.png").write_bytes(b"broken")
    (folder / "in" / "メモ.txt").write_bytes(b"none")
    code, said = run(encoding, "upscale", folder / "in", folder / "出力", *tools)
    assert code == 1 and "4 of 5 pictures written" in said and "1 skipped" in said and "left out" in said
    assert sorted(p.stem for p in (folder / "出力").glob("*.png")) == sorted(NAMES)
    assert "\\udcff\\udcf0.png" in said and ("テスト.png" in said) == (encoding in ("gbk", "utf-8"))
    code, said = run(encoding, "upscale", folder / "in", folder / "出力", *tools, "--skip-existing")
    assert code == 1 and "4 already there" in said


def test_the_other_commands_take_such_names_too(folder: Path, run: Run) -> None:
    model, codec = folder / f"tiny{NO_TEXT}.safetensors", folder / f"codec{NO_TEXT}.safetensors"
    place, converted = ("--photos", folder / "in", "--codec", codec), folder / f"new{NO_TEXT}.safetensors"
    changes = [word for change in SMALL for word in ("--set", change)]
    for words in (
        ("info", model),
        ("info", folder / "tiny😀.safetensors"),
        ("convert", model, converted),
        ("models",),
        ("recipe", "lite"),
        ("encode", folder / "in", "--codec", codec, "--out", folder / f"latents{NO_TEXT}", "--limit", 2),
        ("train", folder / f"latents{NO_TEXT}", folder / "学習.safetensors", *changes),
        ("evaluate", "run", model, *place, "--size", 64, "--nfe", 1, "--metrics", "psnr", "--out", folder / NO_TEXT),
        ("evaluate", "latents", model, *place, "--size", 64, "--nfe", 1),
    ):
        code, said = run("cp1252", *words)
        assert code == 0, said
    assert load_model(converted).spec.name == "tiny" and (folder / NO_TEXT / "results.md").exists()
    code, said = run("cp1252", "train", folder / f"latents{NO_TEXT}", folder / f"{NO_TEXT}.safetensors", *changes)
    assert code == 2 and "has a name that is no UTF-8" in said


@pytest.mark.parametrize("words", [("upscale", "なし.png", "o.png"), ("info", "なし"), ("upscale", "--tile", "テ")])
def test_refusals_can_be_read_on_any_console(run: Run, words: tuple[str, ...]) -> None:
    code, said = run("cp1252", *words)
    assert code == 2 and said.startswith("error: ") and "\\u30" in said + "\\u30" * (words[1] == "--tile")


def test_a_program_without_a_console_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    assert app.main(["recipe", "lite"]) == 0


def test_what_pillow_logs_does_not_stand_above_the_error() -> None:
    """In a process of its own: Python prints a log without a handler, and pytest has one."""
    program = (
        "import logging; from fmboost_core.cli.app import main; main(['models']); logging.getLogger('PIL').error('hm')"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=root, check=True)
    assert "hm" not in done.stderr
