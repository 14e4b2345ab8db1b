"""One stage's latents against the true ones: `latents`, each channel's mean and spread; `floor`, how near one can come.

The best that one evaluation can say is the mean of all large latents that a small one may stand for; it errs by their
spread, whatever the network and its training.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..cli.progress import ProgressBar
from ..errors import require
from ..metrics.image_metrics import latent_mse
from ..model import Model
from ..sampling.guide import pixel_upsample
from ..sampling.schedule import noise_augment, seeded_noise
from ..sampling.upscaler import boost, flow
from .inputs import add_inputs, opened
from .judge import Setting, prepare


def channel_statistics(latents: Mapping[str, list[tuple[Tensor, Tensor]]]) -> str:
    """A table of methods: each channel's mean less the truth's, and its spread over the truth's, over all pairs.

    latents: method -> pairs (made, true), each (1,C,h,w).
    """
    channels = next(iter(latents.values()))[0][0].shape[1]
    heads = [f"mean {c}" for c in range(channels)] + [f"spread {c}" for c in range(channels)]
    lines = [f"| method | {' | '.join(heads)} |", "| --- |" + " ---: |" * len(heads)]
    for method, pairs in latents.items():
        shift = torch.stack([(made - true).mean((0, 2, 3)) for made, true in pairs]).mean(0)
        spread = torch.stack([made.std((0, 2, 3)) / true.std((0, 2, 3)) for made, true in pairs]).mean(0)
        cells = [f"{value:+.4f}" for value in shift.tolist()] + [f"{value:.4f}" for value in spread.tolist()]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def latents(args: argparse.Namespace) -> None:
    """The command `latents`."""
    model, codec, photos = opened(args)
    setting = Setting(args.scale, args.size)
    made: dict[str, list[tuple[Tensor, Tensor]]] = {"guide": [], **{f"nfe {nfe}": [] for nfe in args.nfe}}
    with ProgressBar("Photographs") as bar:
        for done, path in enumerate(photos.values(), start=1):
            case = prepare(path, codec, setting)
            made["guide"].append((pixel_upsample(case.low, codec, case.size), case.latent))
            for nfe in args.nfe:
                made[f"nfe {nfe}"].append((boost(case.low, model, codec, scale=args.scale, nfe=nfe), case.latent))
            bar(done, len(photos))
    print(
        f"{model.spec.name} on {len(photos)} photographs at {args.scale}x: means of each channel less the true "
        f"latents', and deviations over theirs.\n\n{channel_statistics(made)}",
        end="",
    )


def spread(model: Model, guide: Tensor, nfe: int) -> float:
    """Half the mean squared distance of two results from one guide (1,C,h,w): the variance of what the flow draws."""
    ends = [flow(_start(model, guide, seed), guide, model, nfe=nfe) for seed in (0, 1)]
    return latent_mse(*ends) / 2


def _start(model: Model, guide: Tensor, seed: int) -> Tensor:
    return noise_augment(guide, model.spec.alpha_bar, seeded_noise(seed, 1)(tuple(guide.shape)))


def floor(args: argparse.Namespace) -> None:
    """The command `floor`."""
    model, codec, photos = opened(args)
    require(all(nfe > 0 for nfe in args.nfe), "nfe", args.nfe, "above 0")
    setting = Setting(args.scale, args.size)
    errors: list[float] = []
    spreads: dict[int, list[float]] = {nfe: [] for nfe in args.nfe}
    with ProgressBar("Photographs") as bar, torch.no_grad():
        for done, path in enumerate(photos.values(), start=1):
            case = prepare(path, codec, setting)
            guide = pixel_upsample(case.low, codec, case.size).float()
            psu = latent_mse(guide, case.latent)
            errors.append(latent_mse(flow(_start(model, guide, 0), guide, model, nfe=1), case.latent) / psu)
            for nfe in args.nfe:
                spreads[nfe].append(spread(model, guide, nfe) / psu)
            bar(done, len(photos))
    print(
        f"{model.spec.name} on {len(photos)} photographs at {args.scale}x, mean squares over PSU's error.\n\n"
        f"error of one evaluation: {_mean(errors):.3f}"
    )
    for nfe, found in spreads.items():
        print(f"half the squared distance of two results, nfe {nfe}: {_mean(found):.3f}")


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def add_command(commands: Any) -> None:
    """Add `latents` and `floor` to a parser's subcommands."""
    statistics = commands.add_parser("latents", help="each channel's mean and spread against the true latents'")
    statistics.add_argument("--nfe", type=int, nargs="+", default=[1, 4])
    statistics.set_defaults(run=latents)
    lowest = commands.add_parser("floor", help="the error of one evaluation, and the spread that it cannot know")
    lowest.add_argument("--nfe", type=int, nargs="+", default=[8, 32], help="evaluations to draw results with")
    lowest.set_defaults(run=floor)
    for p in (statistics, lowest):
        p.add_argument("--scale", type=int, default=2)
        p.add_argument("--size", type=int, default=512, help="largest side of the photographs' crops, in pixels")
        add_inputs(p)
