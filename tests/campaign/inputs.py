"""A campaign of generated inputs through the command `upscale`, in one process:

    python tests/campaign/inputs.py --count 10000 --seed 0

Input i has the seed `seed` + i; `--seed N --count 1` repeats one. The network and the codec are small and quick;
everything else is the real way. It checks that there is no traceback, no value that is not finite, no wrong size, no
lost metadata without a note, and no half-written file, and prints counts and the seeds that fail.
"""

# ruff: noqa: E402 (this folder's project comes first on the path, before an installed one)
from __future__ import annotations

import argparse
import io
import os
import sys
import time
import traceback
import warnings
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import numpy as np
import tifffile
import torch
import torch.nn.functional as F
from make import Random, Source, make, one_of
from networks import make_model
from PIL import Image, UnidentifiedImageError

from fmboost_core.cli import app, device
from fmboost_core.cli.record import RECORD
from fmboost_core.files.checkpoint import save_model
from fmboost_core.imaging.read import read_picture
from fmboost_core.sampling.target import Target

OUTPUTS = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".PNG")
NOTED = {"EXIF": "EXIF data"}  # any note on EXIF data speaks of all of it
STARTS = ("error: ", "note: ", "skipped: ")


class QuickCodec(torch.nn.Module):
    """Means of 8x8 pixels as latents, and their interpolation as images: a codec that costs next to nothing."""

    channels, downscale_factor, family, name = 4, 8, "sd15", "quick"

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        small = F.avg_pool2d(images, 8)
        return torch.cat([small, small.mean(1, keepdim=True)], dim=1)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return F.interpolate(latents[:, :3], scale_factor=8, mode="bilinear")


@dataclass(frozen=True)
class Run:
    """What a command did: its exit code, None for an exception; its outputs; its arguments."""

    code: int | None
    out: str
    err: str
    options: list[str]


def main() -> int:
    parser = argparse.ArgumentParser(description="Generated inputs through the command upscale.")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    Image.init()
    began, counts, failures = time.monotonic(), Counter[str](), dict[int, list[str]]()
    with TemporaryDirectory() as folder:
        model = Path(folder) / "tiny.safetensors"
        save_model(make_model(), model)
        load_quickly(model)
        for i in range(args.count):
            seed = args.seed + i
            outcome, faults = one_input(seed, Path(folder) / str(seed), model)
            counts[outcome] += 1
            if faults:
                failures[seed] = faults
                print(f"\nseed {seed}: {outcome}\n  " + "\n  ".join(faults), flush=True)
            if sys.stderr.isatty() or (i + 1) % 500 == 0:
                print(f"\r{i + 1} of {args.count}, {len(failures)} failed", end="", file=sys.stderr, flush=True)
    seconds = time.monotonic() - began
    print(f"\n{args.count} inputs from seed {args.seed} in {seconds:.0f} s")
    for outcome, number in counts.most_common():
        print(f"{number:7d}  {outcome}")
    print(f"{len(failures)} failed: {' '.join(map(str, failures)) or 'none'}")
    return 1 if failures else 0


def load_quickly(model: Path) -> None:
    """Let the command load the model once, and the quick codec with it."""

    @cache
    def tools(*_: str) -> device.Tools:
        network = device.load_model(str(model)).to(torch.device("cpu"), torch.float32)
        return device.Tools(network, QuickCodec(), torch.device("cpu"), {})  # type: ignore[arg-type]

    device.load_tools = tools


def one_input(seed: int, folder: Path, model: Path) -> tuple[str, list[str]]:
    """Make an input, enlarge it and check it: what became of it, and the faults."""
    random = np.random.default_rng(seed)
    torch.manual_seed(seed)
    (folder / "in").mkdir(parents=True)
    (folder / "out").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = make(random, folder / "in")
        several = random.random() < 0.1
        target = output(random, folder / "out", source, several)
        options, wish = choices(random)
        if several:
            options += ["--format", "png"] if random.random() < 0.5 else []
        old = b"precious" if not several and random.random() < 0.2 else None
        if old is not None:
            target.write_bytes(old)
        given = source.path.parent if several else source.path
        run = command(
            ["upscale", "--model", str(model), *options, str(given), str(folder / "out" if several else target)]
        )
        faults = check(run, source, target, wish, old, several)
    place = "a folder: " if several else ""
    outcome = {0: "enlarged", 1: "skipped", 2: "refused", None: "raised"}.get(run.code, f"exit code {run.code}")
    return f"{outcome}: {place}{source.kind.split()[0].rstrip(':')}", [
        *faults,
        *([f"{source.kind} {run.options}"] if faults else []),
    ]


def output(random: Random, folder: Path, source: Source, several: bool) -> Path:
    if several:
        return folder / source.path.name
    return folder / f"large{one_of(random, OUTPUTS)}"


def choices(random: Random) -> tuple[list[str], Target]:
    """Random options of the command, and the target that they ask for."""
    options, wish = ["--nfe", "1"], Target()
    kind = random.integers(5)
    if kind == 1:
        wish = Target(scale=round(float(random.uniform(1, 3)), 2))
        options += ["--scale", str(wish.scale)]
    elif kind == 2:
        wish = Target(
            size=(int(random.integers(1, 500)), int(random.integers(1, 500))), stretch=bool(random.integers(2))
        )
        assert wish.size
        options += ["--size", f"{wish.size[0]}x{wish.size[1]}", *(["--stretch"] if wish.stretch else [])]
    elif kind == 3:
        wish = Target(megapixels=round(float(random.uniform(0.001, 0.2)), 4))
        options += ["--megapixels", str(wish.megapixels)]
    for name, values in {
        "--seed": [0, 7, 2**40], "--noise-step": [100, 400], "--tile": ["off", "auto", 16], "--quality": [1, 80, 100],
        "--subsampling": ["4:4:4", "4:2:2", "4:2:0"], "--solver": ["euler"],
    }.items():  # fmt: skip
        if random.random() < 0.15:
            options += [name, str(one_of(random, values))]
    options += ["--no-restore"] if random.random() < 0.2 else []
    return options, wish


def command(arguments: list[str]) -> Run:
    """Run the command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code: int | None = app.main(arguments)
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        except BaseException:
            code = None
            traceback.print_exc(file=err)
    return Run(code, out.getvalue(), err.getvalue(), arguments[3:-2])


def check(run: Run, source: Source, target: Path, wish: Target, old: bytes | None, several: bool) -> list[str]:
    """The faults of a run, as sentences."""
    faults = []
    said = [line for line in run.err.splitlines() if line.strip()]
    # A name may hold a line break, so only the beginning of the whole is sure.
    if run.code not in (0, 1, 2) or "Traceback" in run.err or (said and not said[0].startswith(STARTS)):
        faults.append(f"exit code {run.code}: {run.err[-1500:]}")
    if "NaN" in run.err:
        faults.append(f"not finite: {run.err}")
    beside = [p for p in target.parent.iterdir() if p.name != RECORD]
    litter = [p.name for p in beside if p.name.startswith(".fmboost") or p.name.endswith(".tmp")]
    if litter:
        faults.append(f"left behind: {litter}")
    if several:
        return faults + [fault for p in beside for fault in whole(p)]
    if run.code == 2:
        now = target.read_bytes() if target.exists() else None
        if now != old:
            faults.append("refused, but the output has changed")
        if source.good and fits(source, wish):
            faults.append(f"refused a good picture of {source.size}: {run.err}")
    if run.code == 0:
        faults += whole(target) or enlarged(run, source, target, wish)
    return faults


def fits(source: Source, wish: Target) -> bool:
    """Whether the target is no smaller than the source."""
    assert source.size
    try:
        wish.pixels(source.size[::-1], 2)
    except ValueError:
        return False
    return True


def whole(path: Path) -> list[str]:
    """Whether a written picture can be read to its end."""
    try:
        shown(path)
    except Exception as error:
        return [f"{path.name} cannot be read: {error!r}"]
    return []


def shown(path: Path) -> tuple[tuple[int, int], dict[Any, Any]]:
    """The size and Pillow's facts of a picture that is read to its end, by others than the project."""
    try:
        with Image.open(path) as image:
            image.load()
            return image.size, dict(image.info)
    except UnidentifiedImageError:  # Pillow reads no TIFF of grey with alpha in 16 bits
        with tifffile.TiffFile(path) as file:
            page = file.pages[0]
            size = (page.asarray().shape[1], page.asarray().shape[0])
            tags = {"dpi": page.tags.get(282), "icc_profile": page.tags.valueof(34675)}
            return size, {name: value for name, value in tags.items() if value is not None}


def enlarged(run: Run, source: Source, target: Path, wish: Target) -> list[str]:
    """The size, and all that was carried or named in a note."""
    size = source.size
    if size is None:
        picture = read_picture(source.path)
        size = (picture.width, picture.height)
    height, width = wish.pixels(size[::-1], 2)
    faults = []
    found, info = shown(target)
    if found != (width, height):
        faults.append(f"{found} instead of {(width, height)}")
    data = target.read_bytes()
    for name, forms in source.carried.items():
        said = (
            name.partition(" ")[2] if name.startswith(("text ", "chunk ")) else NOTED.get(name.partition(" ")[0], name)
        )
        if said.lower() in run.err.lower() or any(form in data for form in forms if form):
            continue
        if name == "ICC" and (
            not forms or info.get("icc_profile") in forms or "converted" in run.err or "CMYK" in run.err
        ):
            continue
        if name == "resolution" and ("dpi" in info or target.suffix == ".webp"):
            continue
        if name.startswith("chunk ") and (info.get("icc_profile") or "HDR" in run.err):
            continue
        if name == "text parameters" and carried_recipe(forms[-1].decode("utf-16-le"), data):
            continue
        faults.append(f"lost {name}, and the notes are: {run.err}")
    return faults


def carried_recipe(recipe: str, data: bytes) -> bool:
    """Whether a recipe is there; what follows it is the line on the enlargement."""
    return any(recipe.rstrip().encode(name, "replace") in data for name in ("utf-8", "latin-1", "utf-16-be"))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    sys.exit(main())
