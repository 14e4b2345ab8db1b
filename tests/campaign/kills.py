"""Kills a batch of pictures, an encoding, a training and a conversion at random moments, and lets each go on.

    python tests/campaign/kills.py --count 200

Each kill is a SIGKILL. After it, every file under a final name must be whole. After one to three kills the same
command runs to its end. Then the folder must be that of a run that nobody killed, byte for byte and without temporary
files, and no picture or shard that was finished before a kill may have been made again.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # a process with more threads cannot be forked
ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import accelerate  # noqa: E402, F401 (here, so that each of the processes has it already)
import torch  # noqa: E402
import torch.utils.tensorboard  # noqa: E402
from networks import make_model  # noqa: E402
from PIL import Image  # noqa: E402

from fmboost_core.cli import app  # noqa: E402
from fmboost_core.cli.record import RECORD, read_record  # noqa: E402
from fmboost_core.codecs.load import save_codec  # noqa: E402
from fmboost_core.codecs.tiny import tiny_codec  # noqa: E402
from fmboost_core.files.checkpoint import load_model, save_model  # noqa: E402
from fmboost_core.training.data import encode  # noqa: E402
from fmboost_core.training.data.shards import read_shard  # noqa: E402
from fmboost_core.training.loop import Trainer  # noqa: E402

Run = Callable[[Path], list[str]]


@dataclass
class Work:
    """A command that is killed. words: its arguments for an output folder. kept: suffixes that are made once."""

    name: str
    words: Run
    kept: tuple[str, ...] = ()
    seconds: float = 0.0  # of a run that nobody kills


class Fault(Exception):
    """What a kill has broken."""


# --- the commands


def works(folder: Path) -> list[Work]:
    """The four commands, over small pictures and a tiny model that are made here."""
    torch.manual_seed(0)
    save_model(make_model(), folder / "tiny.safetensors")
    save_codec(
        tiny_codec(width=16, blocks=1, stem=4), folder / "codec.safetensors", license="MIT", trained_on="nothing"
    )
    for number in range(6):
        place = folder / "photos" / ("deep" if number % 2 else "") / f"{number}.{('png', 'bmp')[number % 3 == 0]}"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((64 + number, 48), 60).convert("RGB").save(place)
    model, codec, photos = (str(folder / name) for name in ("tiny.safetensors", "codec.safetensors", "photos"))
    changes = (
        "network.base=8", "network.multipliers=[1,2]", "network.res_blocks=1", "data.crop=4", "data.batch=4",
        "loop.samples=80", "loop.bf16=false",
    )  # fmt: skip
    latents = str(folder / "latents")
    finish(["encode", photos, "--codec", codec, "--out", latents], folder / "log")

    def upscale(out: Path) -> list[str]:
        tools = ["--model", model, "--codec", codec, "--device", "cpu"]
        return ["upscale", photos, str(out), *tools, "--recursive", "--skip-existing"]

    def train(out: Path) -> list[str]:
        return ["train", latents, str(out / "mine.safetensors"), *(w for c in changes for w in ("--set", c))]

    return [
        Work("upscale", upscale, (".png",)),
        Work("encode", lambda out: ["encode", photos, "--codec", codec, "--out", str(out)], (".tar", ".part")),
        Work("train", train),
        Work("convert", lambda out: ["convert", model, str(out / "half.safetensors"), "--dtype", "float16"]),
    ]


def start(words: list[str], log: Path) -> int:
    """Run a command in a process of its own; returns the process's number."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        encode.SHARD_VIEWS = 4
        Trainer.run.__defaults__ = (0.0,)  # a checkpoint after each step, not after two minutes
        code = app.main(words)
    finally:
        sys.stdout.flush()
        os._exit(code)


def finish(words: list[str], log: Path) -> float:
    """Run a command to its end; returns the seconds. Raises `Fault` for an exit code that is not 0."""
    began = time.monotonic()
    _, status = os.waitpid(start(words, log), 0)
    if status:
        raise Fault(f"{' '.join(words)} ended with {os.waitstatus_to_exitcode(status)}:\n{log.read_text()[-2000:]}")
    return time.monotonic() - began


def kill(words: list[str], log: Path, after: float) -> bool:
    """Kill a command after so many seconds; returns whether it was still running."""
    process = start(words, log)
    time.sleep(after)
    os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    return os.WIFSIGNALED(status)


# --- what must hold


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder that do not tell the time: all but records, journals, checkpoints and temporary files."""
    timed = (".csv", ".training", ".tmp", RECORD)
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith(timed) and ".tensorboard" not in str(path)
    }


def require_whole(folder: Path, reference: dict[str, bytes], finished: bool) -> None:
    """Raise `Fault` for a file that is half-written, and at the end for one that is missing or left over."""
    found = contents(folder)
    for name, data in found.items():
        if name.endswith(".part") and not finished:
            read_shard(folder / name)
        elif name.endswith(".safetensors") and not finished:
            load_model(folder / name)
        elif data != reference.get(name):
            raise Fault(f"{name} is half-written, left over or another file")
    for path in folder.rglob("*.training"):
        torch.load(path, weights_only=True)
    for path in folder.rglob(RECORD):
        if not all(name in {p.name for p in path.parent.iterdir()} for name in read_record(path.parent)):
            raise Fault(f"{path} names a picture that is not there")
    if not finished:
        return
    left = [str(path) for path in folder.rglob("*.tmp")]
    if found.keys() != reference.keys() or left:
        raise Fault(f"missing: {sorted(reference.keys() - found.keys())}, left over: {left}")
    for path in folder.rglob("*.csv"):
        with path.open(newline="") as file:
            steps = [int(row["step"]) for row in csv.DictReader(file)]
        if steps != sorted(set(steps)):
            raise Fault(f"{path} has the steps {steps}")


def times(folder: Path, suffixes: tuple[str, ...]) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix in suffixes}


def campaign(count: int, seed: int, folder: Path) -> dict[str, int]:
    """Kill `count` running commands; returns how often each of them was killed. Raises `Fault`."""
    dice, kills = random.Random(seed), 0
    todo, killed = works(folder), dict.fromkeys(("upscale", "encode", "train", "convert"), 0)
    references = {}
    for work in todo:
        work.seconds = finish(work.words(folder / f"whole-{work.name}"), folder / "log")
        references[work.name] = contents(folder / f"whole-{work.name}")
    for work in cycle(todo):
        if kills >= count:
            break
        out, log = folder / "out", folder / "log"
        words, made = work.words(out), {}
        for _ in range(min(dice.randint(1, 3), count - kills)):
            if kill(words, log, dice.uniform(0, work.seconds)):
                killed[work.name] += 1
                kills += 1
            else:
                work.seconds *= 0.7  # it ends earlier than the first run did
            if out.exists():
                require_whole(out, references[work.name], finished=False)
                made |= times(out, work.kept)
        finish(words, log)
        require_whole(out, references[work.name], finished=True)
        again = [str(path) for path, when in times(out, work.kept).items() if made.get(path, when) != when]
        if again:
            raise Fault(f"{', '.join(again)} was finished and is made again")
        shutil.rmtree(out)
        log.unlink()
    return killed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="number of kills (default 200)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default 0)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            killed = campaign(args.count, args.seed, Path(folder))
        except Fault as fault:
            print(f"fault: {fault}")
            return 1
    print(f"{args.count} kills, no fault: {json.dumps(killed)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
