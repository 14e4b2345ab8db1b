"""`stability`: does a flow keep what it should over many stages in a row?

What one stage shifts by a little, three shift by much: colours drift, or a faint pattern grows until it is seen.
"""

from __future__ import annotations

import argparse
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..cli.progress import ProgressBar
from ..codecs.protocol import Codec
from ..errors import LatentError, NonFiniteError, require
from ..files.checkpoint import load_model
from ..metrics.image_metrics import Meaning, colour, ring_power
from ..model import Model
from ..sampling.guide import pixel_upsample
from ..sampling.upscaler import boost
from ..training.data.encode import disturbed
from .inputs import add_inputs, opened
from .judge import centre_square, decoded, load_photo
from .report import curve, make_folder, markdown, summarise, write_text
from .statistics import Interval, bootstrap

TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
BINS = 48  # of a spectrum, from 0 to half a cycle a pixel
SMALLEST = 64  # pixels
NEIGHBOURS = 4  # bins on each side that a peak is compared with
PSU_ALONE = "PSU alone"

MEANINGS = {
    "colour": Meaning("lower", "1/255", "distance of the worst channel's mean from the small picture's"),
    "fine": Meaning(
        "zero",
        "dB",
        "power above a quarter of a cycle a pixel, over the small picture's, which looks alike at any scale",
    ),
    "peak": Meaning("lower", "dB", "how far the spectrum's sharpest ring stands above its neighbours"),
    "broken": Meaning("lower", "", "share of the latents that came to NaN or infinity; those have no other figures"),
}


def spectrum_of(picture: Tensor) -> Tensor:
    """The luma's power in dB, by frequency in `BINS` equal bins up to half a cycle a pixel."""
    power = ring_power(picture)
    bins = (torch.arange(len(power)) * BINS / len(power)).long()
    return torch.stack([10 * power[bins == i].mean().log10() for i in range(BINS)])


def peak(spectrum: Tensor) -> float:
    """How far the sharpest bin stands above the mean of its neighbours on both sides, in dB; a grid is a peak."""
    inside = range(NEIGHBOURS, BINS - NEIGHBOURS)
    around = [torch.cat([spectrum[i - NEIGHBOURS : i], spectrum[i + 1 : i + 1 + NEIGHBOURS]]).mean() for i in inside]
    return float(max(spectrum[i] - mean for i, mean in zip(inside, around, strict=True)))


def fine_power(picture: Tensor) -> float:
    """The luma's power above a quarter of a cycle a pixel, in dB."""
    power = ring_power(picture)
    return float(10 * power[len(power) // 2 :].mean().log10())


def _judged(low: Tensor, ends: list[Tensor], codec: Codec, count: int) -> list[tuple[dict[str, float], Tensor | None]]:
    """The figures and the spectrum after each of count stages; where it broke before its end, only that it did."""
    first = decoded(codec, low).float()
    mean, fine = first.mean((2, 3), keepdim=True), fine_power(first)
    found: list[tuple[dict[str, float], Tensor | None]] = []
    for end in ends:
        picture = decoded(codec, end).float()
        seen = spectrum_of(picture)
        shift = colour(picture.mean((2, 3), keepdim=True), mean)
        figures = {"colour": shift, "fine": fine_power(picture) - fine, "peak": peak(seen), "broken": 0.0}
        found.append((figures, seen))
    return found + [({"broken": 1.0}, None)] * (count - len(found))


def _boosted(low: Tensor, model: Model, codec: Codec, count: int, seed: int) -> list[Tensor]:
    """The latents after each stage of a cascade, up to where it breaks."""
    state, ends = low, []

    def keep(t: float, latent: Tensor) -> None:
        nonlocal state
        state = latent

    with suppress(NonFiniteError, LatentError):
        scale = model.spec.scale**count
        boost(low, model, codec, scale=scale, seed=seed, on_state=keep, on_stage=lambda stage: ends.append(state))
    return ends


def _psu_alone(low: Tensor, scale: float, codec: Codec, count: int) -> list[Tensor]:
    """The same without the flow: what the codec itself does in as many round trips."""
    ends = [low]
    for _ in range(count):
        height, width = (round(scale * side) * codec.downscale_factor for side in ends[-1].shape[-2:])
        ends.append(pixel_upsample(ends[-1], codec, (height, width)))
    return ends[1:]


def computes(dtype: torch.dtype) -> bool:
    """Whether this torch computes in a type on a CPU; torch 2.1 has no half precision there."""
    one = torch.ones(1, 1, dtype=dtype)
    try:
        return bool((one @ one).isfinite())
    except RuntimeError:
        return False


def stability(args: argparse.Namespace) -> None:
    """The command `stability`."""
    types = args.types or [kind for kind, dtype in TYPES.items() if computes(dtype)]
    for kind in types:
        require(computes(TYPES[kind]), "types", kind, f"those that torch {torch.__version__} computes in on a CPU")
    require(args.size >= SMALLEST, "size", args.size, f"at least {SMALLEST}, or the spectrum has too few rings")
    require(args.stages > 0, "stages", args.stages, "above 0")
    make_folder(args.out)
    model, codec, photos = opened(args)
    models = {kind: load_model(args.model).to(dtype=TYPES[kind]) for kind in types}
    rows: dict[str, dict[str, dict[str, float]]] = {}
    spectra: dict[str, list[Tensor]] = {}
    with ProgressBar("Photographs") as bar:
        for number, (name, path) in enumerate(photos.items()):
            low = codec.encode(centre_square(load_photo(path, 10**6, 1), args.size))
            low = disturbed(low, number) if args.disturb else low
            ways = {kind: _boosted(low, one, codec, args.stages, number) for kind, one in models.items()}
            ways[PSU_ALONE] = _psu_alone(low, model.spec.scale, codec, args.stages)
            for way, ends in ways.items():
                for stage, (figures, seen) in enumerate(_judged(low, ends, codec, args.stages), start=1):
                    method = f"{way}, {round(model.spec.scale**stage)}x"
                    rows.setdefault(method, {})[name] = figures
                    if seen is not None:
                        spectra.setdefault(method, []).append(seen)
            bar(number + 1, len(photos))
    inputs = "disturbed encodings" if args.disturb else "encodings"
    text = (
        f"# {model.spec.name}, {args.stages} stages\n\nFrom {inputs} of {len(photos)} photographs of {args.size} px, "
        f"{model.spec.nfe} evaluations a stage.\n\n{markdown(summarise(rows), MEANINGS)}\n![spectrum](spectrum.png)\n"
    )
    write_text(args.out / "stability.md", text)
    curves = {m: [_interval([float(s[i]) for s in found]) for i in range(BINS)] for m, found in spectra.items()}
    last = {m: c for m, c in curves.items() if m.startswith(f"{types[0]},")}
    curve(
        args.out / "spectrum.png", [(i + 0.5) / (2 * BINS) for i in range(BINS)], last,
        x_label="cycles a pixel", y_label="power, dB", ticks=(0, 1 / 8, 1 / 4, 3 / 8, 1 / 2),
    )  # fmt: skip
    print(text, end="")


def _interval(values: list[float]) -> Interval:
    return bootstrap(values, resamples=200)


def add_command(commands: Any) -> None:
    """Add `stability` to a parser's subcommands."""
    p = commands.add_parser("stability", help="several stages in a row: colours, patterns, NaN")
    p.add_argument("--stages", type=int, default=3)
    p.add_argument("--size", type=int, default=128, help="side of the small pictures, in pixels")
    p.add_argument("--disturb", action="store_true", help="disturb the first latents, as a generator's are")
    p.add_argument("--types", nargs="+", choices=TYPES, help="of the model's weights (default: all that there are)")
    p.add_argument("--out", type=Path, required=True, help="folder of the table and the plot")
    p.set_defaults(run=stability)
    add_inputs(p)
