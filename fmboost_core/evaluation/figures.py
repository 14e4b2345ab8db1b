"""The ablations that are no table of networks: the codec by size, what things cost, and pictures to look at."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..codecs.protocol import Codec
from ..errors import ConfigError
from ..files.checkpoint import load_model
from ..imaging.compare import Panel, busiest_corner
from ..imaging.picture_file import Picture, preview
from ..metrics.image_metrics import measure
from ..model import Model
from ..sampling.guide import pixel_upsample
from ..sampling.schedule import noise_augment, seeded_noise
from .judge import Case, Setting, bicubic, centre_square, decoded, load_photo, prepare
from .report import contact_sheet, markdown, summarise, write_text
from .sampling import Sampler

CODEC_SIZES = (128, 256, 512, 1024)
TIMED_SIZES = (256, 512, 1024)
SHOWN, CROP = 4, 160
COUNTS = (1, 2, 4, 10, 50)
TIMES = (0.0, 0.25, 0.5, 0.75, 1.0)

Figure = Callable[[argparse.Namespace, Mapping[str, Path], Codec], None]


def network(name: str, work: Path) -> Model:
    """A network that another table has trained."""
    path = work / f"{name}.safetensors"
    if not path.exists():
        raise ConfigError(f"{path} is not there yet: it comes with the table objectives; make that one first.")
    return load_model(path)


# --- the codec


def codec_by_size(args: argparse.Namespace, photos: Mapping[str, Path], codec: Codec) -> None:
    """How much of a photograph the codec keeps, by its size (arXiv's Table 7): the same ones at every size."""
    results: dict[str, dict[str, dict[str, float]]] = {f"{size} px": {} for size in CODEC_SIZES}
    for name, path in photos.items():
        photo = load_photo(path, 10**6, 1)
        if min(photo.shape[-2:]) >= CODEC_SIZES[-2]:
            for size in CODEC_SIZES:
                if min(photo.shape[-2:]) >= size:
                    results[f"{size} px"][name] = _round_trip(centre_square(photo, size), codec)
    results = {size: rows for size, rows in results.items() if rows}
    if not results:
        raise ConfigError(
            f"No photograph has {CODEC_SIZES[-2]} pixels a side, so the codec cannot be compared by size."
        )
    # Sizes that few photographs reach are summarised on their own: a table holds only common photographs.
    tables = {size: summarise({size: rows})[size] for size, rows in results.items()}
    counts = ", ".join(f"{size}: {len(rows)}" for size, rows in results.items())
    text = (
        "# codec\n\nHow much does the codec lose, by the size of the picture? Paper: arXiv's Table 7.\n\nThe centre "
        f"square of a photograph, reduced to each size, encoded and decoded. Photographs: {counts}.\n\n"
    )
    write_text(args.out / "codec.md", text + markdown(tables))


@torch.no_grad()
def _round_trip(photo: Tensor, codec: Codec) -> dict[str, float]:
    return measure(decoded(codec, codec.encode(photo)), photo, ("psnr", "ssim", "haarpsi", "detail"))


# --- time


def timing(args: argparse.Namespace, photos: Mapping[str, Path], codec: Codec) -> None:
    """What each part costs by resolution, beside one evaluation of Stable Diffusion 1.5's network."""
    lite = load_model("sd15-x2")
    generator = _diffusion_network()
    head = ["part", *(f"{size} px" for size in TIMED_SIZES)]
    lines: dict[str, list[str]] = {}
    for size in TIMED_SIZES:
        base = 0.0
        for part, run in _parts(size, codec, lite, generator).items():
            seconds = _median_seconds(run, 1 if part.startswith("Stable") else 3)
            base = base or seconds
            lines.setdefault(part, []).append(f"{seconds:.2f} s ({seconds / base:.2g})")
    rows = "\n".join(f"| {part} | {' | '.join(cells)} |" for part, cells in lines.items())
    missing = "" if generator else "\n\nStable Diffusion's network is missing: it needs diffusers (fmboost[others])."
    text = (
        "# timing\n\nWhat does each part cost, by the size of the result? Paper: Fig. 1.\n\nOn "
        f"{torch.get_num_threads()} CPU thread(s), fp32, batch 1, medians of 3 (one run of Stable Diffusion); in "
        "parentheses the ratio to one evaluation of `lite`, which is what to compare. Stable Diffusion 1.5's network "
        "has random weights here, which take as long as trained ones.\n\n"
        f"| {' | '.join(head)} |\n|{' --- |' * len(head)}\n{rows}\n{missing}"
    )
    write_text(args.out / "timing.md", text)


def _parts(size: int, codec: Codec, lite: Model, generator: Any) -> dict[str, Callable[[], Any]]:
    side = size // codec.downscale_factor
    latent, low = torch.randn(1, codec.channels, side, side), torch.randn(1, codec.channels, side // 2, side // 2)
    parts: dict[str, Callable[[], Any]] = {
        "one evaluation of lite": lambda: lite.velocity(latent, 0.5, lite.conditioning(latent)),
        "the guide (decode small, encode large)": lambda: pixel_upsample(low, codec, (size, size)),
        "decode the result": lambda: codec.decode(latent),
    }
    if generator is not None:
        words, text = torch.tensor([500]), torch.randn(1, 77, 768)
        parts["Stable Diffusion 1.5, one evaluation at this size"] = lambda: generator(latent, words, text)
        parts["Stable Diffusion 1.5, one evaluation at half the size"] = lambda: generator(low, words, text)
    return parts


def _diffusion_network() -> Any:
    """Stable Diffusion 1.5's U-Net as diffusers builds it, 860M random parameters; None without diffusers."""
    try:
        from diffusers import UNet2DConditionModel
    except ImportError:
        return None
    down = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
    up = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
    unet: Any = UNet2DConditionModel(
        sample_size=64, block_out_channels=(320, 640, 1280, 1280), cross_attention_dim=768, attention_head_dim=8,
        down_block_types=down, up_block_types=up,
    )  # fmt: skip
    return unet.eval()


@torch.no_grad()
def _median_seconds(run: Callable[[], Any], repeats: int) -> float:
    if repeats > 1:
        run()  # the first run allocates
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


# --- pictures


def pictures_by_evaluations(args: argparse.Namespace, photos: Mapping[str, Path], codec: Codec) -> None:
    """Crops of CFM by evaluations for several photographs, and of CFM, FM and DM for one."""
    models = {name: network(name, args.work) for name in ("cfm", "fm", "dm")}
    cases = [_case(path, codec) for path in _spread(photos)]
    rows = [_row(models["cfm"], codec, case, "CFM" if i == 0 else "") for i, case in enumerate(cases)]
    contact_sheet(args.out / "pictures-nfe.jpg", rows)
    rows = [_row(model, codec, cases[0], name.upper()) for name, model in models.items()]
    contact_sheet(args.out / "pictures-objectives.jpg", rows)
    text = (
        "# pictures\n\nBy the number of evaluations; crops where the photograph has most detail.\n\n"
        "CFM:\n\n![CFM by evaluations](pictures-nfe.jpg)\n\n"
        "CFM, FM and DM:\n\n![objectives by evaluations](pictures-objectives.jpg)\n"
    )
    write_text(args.out / "pictures.md", text)


def _spread(photos: Mapping[str, Path]) -> list[Path]:
    """A few photographs from all over the set."""
    paths = list(photos.values())
    return paths[:: max(1, len(paths) // SHOWN)][:SHOWN]


def _case(path: Path, codec: Codec) -> Case:
    return prepare(path, codec, Setting(2))


def _row(model: Model, codec: Codec, case: Case, name: str) -> list[Panel]:
    """Interpolation, the evaluations, the truth."""
    made = {"bicubic": bicubic(case)}
    for nfe in COUNTS:
        made[f"{name}, {nfe}"] = decoded(codec, Sampler(model, codec, nfe)(case.small, case.low, case.size))
    return _panels({**made, "truth": case.truth}, case.truth, titled=bool(name))


def _panels(pictures: Mapping[str, Tensor], truth: Tensor, titled: bool) -> list[Panel]:
    size = (min(CROP, truth.shape[-1]), min(CROP, truth.shape[-2]))
    left, top = busiest_corner(preview(Picture(truth)), size)
    box = (left, top, left + size[0], top + size[1])
    return [Panel(preview(Picture(p)).crop(box), name if titled else "", "") for name, p in pictures.items()]


@torch.no_grad()
def trajectory(args: argparse.Namespace, photos: Mapping[str, Path], codec: Codec) -> None:
    """Along CFM's way: the decoded state at several times, and below it where the velocity there points to."""
    model = network("cfm", args.work)
    rows: list[list[Panel]] = []
    for number, path in enumerate(_spread(photos)):
        case = _case(path, codec)
        states, ends = _way(model, codec, case)
        rows.append(_panels(_named("state", states, codec), case.truth, titled=number == 0))
        rows.append(_panels(_named("estimate", ends, codec), case.truth, titled=number == 0))
    contact_sheet(args.out / "trajectory.jpg", rows)
    text = (
        "# trajectory\n\nCFM in 20 Euler steps: the decoded state at each time, and below it the end that the "
        "velocity there points to, x_t + (1 - t) v.\n\n![states and estimates](trajectory.jpg)\n"
    )
    write_text(args.out / "trajectory.md", text)


def _way(model: Model, codec: Codec, case: Case, steps: int = 20) -> tuple[list[Tensor], list[Tensor]]:
    """The states and the estimates of the end at `TIMES`."""
    guide = pixel_upsample(case.low, codec, case.size)
    x = noise_augment(guide, model.spec.alpha_bar, seeded_noise(0, 1)(tuple(guide.shape)))
    states, ends = [], []
    for i in range(steps + 1):
        t = i / steps
        velocity = model.velocity(x, t, model.conditioning(guide))
        if t in TIMES:
            states.append(x)
            ends.append(x + (1 - t) * velocity)
        x = x + velocity / steps
    return states, ends


def _named(what: str, latents: Sequence[Tensor], codec: Codec) -> dict[str, Tensor]:
    return {f"{what}, t = {t:g}": decoded(codec, latent) for t, latent in zip(TIMES, latents, strict=True)}


FIGURES: dict[str, Figure] = {
    "codec": codec_by_size, "timing": timing, "pictures": pictures_by_evaluations, "trajectory": trajectory,
}  # fmt: skip
