"""Completion: the scripts, read and asked by the shells themselves."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fmboost_core.cli import app
from fmboost_core.cli.completion import SHELLS
from fmboost_core.files.locate import bundled_models

ROOT = Path(__file__).parents[1]


@pytest.fixture
def script(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """A function that writes a shell's script to a file; the test is skipped without shtab or the shell."""
    pytest.importorskip("shtab")

    def script(shell: str) -> Path:
        if shutil.which(shell) is None:
            pytest.skip(f"needs {shell}")
        assert app.main(["completion", shell]) == 0
        path = tmp_path / f"fmboost.{shell}"
        path.write_text(capsys.readouterr().out)
        return path

    return script


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch) -> None:
    """The current folder has a picture, a model and a folder."""
    for name in ("photo.jpg", "sd15-mine.safetensors"):
        (tmp_path / name).touch()
    (tmp_path / "shards").mkdir()
    monkeypatch.chdir(tmp_path)


ASKED = [
    ("doc", {"doctor"}),
    ("", set(app.COMMANDS) | {"train-codec", "train-guide", "train-upscale-model"}),
    ("upscale --model sdxl", {"sdxl-x2", "sdxl-x2-direct", "sdxl-x4"}),
    ("upscale --model sd15-", {"sd15-mine.safetensors", *(n for n in bundled_models() if n.startswith("sd15-"))}),
    ("upscale --codec b", {"builtin"}),
    ("upscale --dtype b", {"bfloat16"}),
    ("upscale --upscale-model bu", {"builtin"}),
    ("upscale --upscale-model no", {"none"}),
    ("encode --teacher bu", {"builtin"}),
    ("upscale --prev", {"--preview"}),
    ("upscale pho", {"photo.jpg"}),
    ("info flux", {"flux1-x2", "flux1-x2-direct"}),
    ("evaluate fl", {"floor"}),
    ("evaluate run --metr", {"--metrics"}),
    ("completion f", {"fish"}),
]


@pytest.mark.parametrize("line, words", ASKED, ids=[line or "nothing" for line, _ in ASKED])
def test_bash_completes(script, in_folder, line: str, words: set[str]) -> None:
    path = script("bash")
    code = f"""source {path}
        COMP_WORDS=(fmboost {line}{' ""' if not line else ""}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
        _shtab_fmboost; printf '%s\\n' "${{COMPREPLY[@]}}"; complete -p fmboost"""
    done = subprocess.run(["bash", "--norc", "-c", code], capture_output=True, text=True, check=True)
    *found, registered = done.stdout.splitlines()
    assert set(found) - {""} == words
    assert registered == "complete -o bashdefault -F _shtab_fmboost fmboost"


@pytest.mark.parametrize("line, words", ASKED, ids=[line or "nothing" for line, _ in ASKED])
def test_fish_completes(script, in_folder, line: str, words: set[str]) -> None:
    code = f"source {script('fish')}; complete -C 'fmboost {line}'"
    environ = {**os.environ, "HOME": str(Path.cwd()), "TERM": "dumb"}
    done = subprocess.run(["fish", "--no-config", "-c", code], capture_output=True, text=True, check=True, env=environ)
    found = {text.partition("\t")[0].removesuffix("/") for text in done.stdout.splitlines()}
    assert found >= words and all(not line or line.split()[-1] in word for word in found)


@pytest.mark.parametrize(
    "line, completed",
    [
        ("doc", "fmboost doctor"),
        ("upscale --model flu", "--model flux1-x2"),
        ("upscale --model sd15-m", "--model sd15-mine.safetensors"),
        ("upscale --dtype bf", "--dtype bfloat16"),
        ("bench --mod", "bench --model"),
    ],
)
def test_zsh_completes(script, in_folder, tmp_path, line: str, completed: str) -> None:
    """Typed into an interactive zsh, with the tabulator behind it."""
    pty = pytest.importorskip("pty")
    path = script("zsh")
    (tmp_path / ".zshrc").write_text(
        f"PS1='> '; unsetopt beep\nautoload -U compinit && compinit -u\neval \"$(cat {path})\"\necho ready\n"
    )
    process, terminal = pty.fork()
    if process == 0:
        os.execvpe("zsh", ["zsh", "-i"], {**os.environ, "ZDOTDIR": str(tmp_path), "TERM": "xterm", "COLUMNS": "200"})
    got = bytearray()
    reader = threading.Thread(target=_read_into, args=(terminal, got), daemon=True)
    reader.start()
    try:
        _wait(got, b"ready")
        os.write(terminal, f"fmboost {line}\t".encode())
        _wait(got, completed.encode())
        assert completed in got.decode(errors="replace")
    finally:
        os.kill(process, 9)
        os.waitpid(process, 0)
        reader.join(10)
        os.close(terminal)


def _read_into(terminal: int, got: bytearray) -> None:
    try:
        while chunk := os.read(terminal, 4096):
            got += chunk
    except OSError:  # Linux's end of a terminal
        pass


def _wait(got: bytearray, text: bytes) -> None:
    deadline = time.monotonic() + 60
    while text not in got and time.monotonic() < deadline:
        time.sleep(0.05)


def test_without_shtab_it_says_what_to_install(monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert app.main(["completion", "bash"]) == 2
    assert capsys.readouterr().err == "error: Completion needs the package shtab; install it (pip install shtab).\n"


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_is_made_without_pytorch(shell: str) -> None:
    pytest.importorskip("shtab")
    code = f"import sys\nfrom fmboost_core.cli import main\nmain(['completion', {shell!r}])"
    code += "\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=ROOT)
