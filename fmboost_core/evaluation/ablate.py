"""`ablate`: train the networks of a table, judge them, and write the table with its plots.

Everything that takes time is kept in a folder of work: networks with their checkpoints, and the figures of each
photograph. So a table may take several sittings, and what two tables share is done once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..cli.progress import ProgressBar
from ..codecs.kl import open_codec
from ..codecs.protocol import Codec
from ..errors import ConfigError
from ..files.checkpoint import load_model
from ..metrics.image_metrics import MEANINGS, latent_mse
from ..model import Model
from ..sampling.guide import image_guide, pixel_upsample
from ..training.data.degrade import plan
from ..training.data.encode import reduced
from ..training.data.latents import load_shards
from ..training.data.photos import find_photos
from ..training.recipe import Recipe, load_recipe
from ..training.session import run_to_end
from ..training.train import finished, make_trainer, write
from .figures import FIGURES
from .judge import BASELINES, Case, Setting, bicubic, decoded, load_photo, prepare
from .report import Summary, bars, curve, make_folder, markdown, summarise, write_json, write_text
from .results import Results, digest, photo_names
from .run import Made, Task, judge_all, series_over_evaluations
from .sampling import Sampler
from .tables import COMMON, TABLES, TRAININGS, Row, Table
from .views import Views

METRICS = ("psnr", "ssim", "haarpsi", "gmsd", "swd", "spectrum", "detail", "colour")
PLOTTED = ("psnr", "latent_mse", "detail", "swd")


# --- training


def recipe_for(name: str, work: Path, samples: int | None = None, compiled: bool = False) -> Recipe:
    """The recipe of one of `TRAININGS`. samples: instead of the table's."""
    training = TRAININGS[name]
    own = [change.format(cfm=(work / "cfm.safetensors").as_posix()) for change in training.changes]
    how = [f"loop.samples={samples or training.samples}", f"loop.compile={str(compiled).lower()}"]
    return load_recipe("lite", [*COMMON, *own, *how])


def trained(name: str, data: Path, work: Path, samples: int | None = None, compiled: bool = False) -> Model:
    """The network in `work`, trained to its end if it is not yet, on a folder of `data`."""
    path, shards = work / f"{name}.safetensors", data / TRAININGS[name].shards
    if not path.exists():
        if "{cfm}" in "".join(TRAININGS[name].changes):
            trained("cfm", data, work, samples, compiled)
        recipe, latents = recipe_for(name, work, samples, compiled), load_shards(shards)
        print(f"Training {name}: {recipe.loop.samples} samples of {shards}.")
        trainer, _ = make_trainer(recipe, latents)
        run_to_end(trainer, path)
        write(finished(recipe, trainer.average, latents.scale, name), path)
    return load_model(path)


def networks_of(table: Table) -> list[str]:
    """The table's networks, each once."""
    return list(dict.fromkeys(row.network for row in table.rows))


# --- judging


def case_of(path: Path, codec: Codec, setting: Setting, seed: int | None) -> Case:
    """The photograph's case; seed: of what spoils its small picture, None for nothing."""
    if seed is None:
        return prepare(path, codec, setting)
    photo = load_photo(path, setting.size, 2 * codec.downscale_factor * setting.scale)
    small, latent = reduced(photo, setting.scale, plan(seed, setting.scale)), codec.encode(photo)
    return Case(small, codec.encode(small), latent, decoded(codec, latent))


class Guides:
    """A photograph's first guides, which take as long as decoding it: each is made once for all rows."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.made: dict[tuple[str, str, float], Tensor] = {}

    def of(self, sampler: Sampler) -> Tensor:
        spec, case = sampler.model.spec, self.case
        key = (spec.guide, sampler.kind, spec.scale)
        if key not in self.made:
            self.made[key] = sampler.first_guide(case.small, case.low, case.size)
        return self.made[key]


def made_by(sampler: Sampler, case: Case, guides: Guides) -> Made:
    """A row's picture of a photograph, its latent's error, and the evaluations of all stages together."""
    count = 0

    def counted() -> None:
        nonlocal count
        count += 1

    latent = sampler(case.small, case.low, case.size, guides.of(sampler), counted)
    return decoded(sampler.codec, latent), {"latent_mse": latent_mse(latent, case.latent), "evaluations": float(count)}


def judged_in(table: Table, work: Path) -> Path:
    """Where the figures are kept, together with those of tables that look at the same small pictures."""
    return work / f"judged-x{table.scale}-{table.kind}{'-degraded' * table.degraded}"


def method_of(row: Row) -> str:
    """A row's name in the figures that are kept, which tables share."""
    return f"{row.network}, {row.solver} {row.nfe}"


def table_task(
    table: Table, samplers: Mapping[str, Sampler], codec: Codec, photos: Mapping[str, Path], size: int
) -> Task:
    """What a table's rows are to do with each photograph, beside bicubic interpolation and the guide alone.

    size: largest side of the photographs' crops, in pixels.
    """
    setting = Setting(table.scale, size, metrics=METRICS)
    seeds = {path: number for number, path in enumerate(photos.values())}

    def guide(case: Case) -> Made:
        of_picture = table.kind == "image"
        latent = (image_guide if of_picture else pixel_upsample)(
            case.small if of_picture else case.low, codec, case.size
        )
        return decoded(codec, latent), {"latent_mse": latent_mse(latent, case.latent)}

    def open_photo(path: Path) -> tuple[Tensor, dict[str, Callable[[], Made]]]:
        case = case_of(path, codec, setting, seeds[path] if table.degraded else None)
        guides = Guides(case)
        makers: dict[str, Callable[[], Made]] = {
            name: partial(made_by, sampler, case, guides) for name, sampler in samplers.items()
        }
        return case.truth, {"bicubic": lambda: (bicubic(case), {}), "guide": partial(guide, case), **makers}

    return Task(photos, [*BASELINES, *samplers], open_photo)


def judged(name: str, args: argparse.Namespace, codec: Any, photos: Mapping[str, Path]) -> Summary:
    """The table's figures, by the rows' names; training and judging what is not there yet."""
    table = TABLES[name]
    networks = {n: trained(n, args.data, args.work, args.samples, args.compile) for n in networks_of(table)}
    place = judged_in(table, args.work)
    how = {"scale": table.scale, "size": args.size, "metrics": METRICS, "kind": table.kind, "bf16": args.bf16}
    results = Results(place, {"codec": Path(args.codec).name, **how})
    for network, model in networks.items():
        results.claim(network, digest(model.network))
    samplers = {
        method_of(row): Sampler(networks[row.network], codec, row.nfe, row.solver, table.kind) for row in table.rows
    }
    with ProgressBar(f"Judging {name}") as bar:
        judge_all(table_task(table, samplers, codec, photos, args.size), results, METRICS, Views(place), bar)
    rows = {"bicubic": "bicubic", "guide": "guide", **{row.name: method_of(row) for row in table.rows}}
    seen = [photo for photo in photos if all(results.has(method, photo) for method in rows.values())]
    for photo in photos.keys() - set(seen):
        print(f"skipped: {results.skipped.get(photo, photo)}", file=sys.stderr)
    if not seen:
        raise ConfigError("None of the photographs could be judged; those skipped are listed above.")
    return summarise({row: {photo: results.methods[method][photo] for photo in seen} for row, method in rows.items()})


# --- writing


def write_table(name: str, summary: Summary, out: Path, about: str) -> None:
    """OUT/NAME.md, .json and plots."""
    table = TABLES[name]
    plots = [f"![{metric}]({name}-{metric}.png)" for metric in PLOTTED]
    shown = {row: _without_needless(figures, summary) for row, figures in summary.items()}
    text = f"# {name}\n\n{table.question}\n\n{about}\n\n{markdown(shown)}\n{' '.join(plots)}\n"
    write_text(out / f"{name}.md", text)
    write_json(out / f"{name}.json", {r: {k: vars(v) for k, v in figures.items()} for r, figures in summary.items()})
    for metric in PLOTTED:
        _plot(
            out / f"{name}-{metric}.png", metric, {row: f[metric] for row, f in summary.items() if metric in f}, table
        )


def _without_needless(figures: Mapping[str, Any], summary: Summary) -> dict[str, Any]:
    """Evaluations are worth a column only where a row's name does not say them."""
    return {k: v for k, v in figures.items() if k != "evaluations" or any("dopri5" in row for row in summary)}


def _plot(path: Path, metric: str, values: Mapping[str, Any], table: Table) -> None:
    label = f"{metric}, {MEANINGS[metric].unit}" if MEANINGS[metric].unit else metric
    if table.curves:
        counts, series, levels = series_over_evaluations(values)
        if counts:
            levels.pop("bicubic", None)
            curve(path, counts, series, x_label="evaluations", y_label=label, log_x=True, levels=levels)
            return
    bars(path, values, x_label=label, mark=1.0 if MEANINGS[metric].better == "one" else None)


# --- the command


def add_command(commands: Any) -> None:
    """Add `ablate` to a parser's subcommands."""
    p: argparse.ArgumentParser = commands.add_parser("ablate", help="the paper's comparisons, at this machine's scale")
    p.add_argument("names", nargs="+", metavar="NAME", help=", ".join([*TABLES, *FIGURES]))
    p.add_argument("--data", type=Path, required=True, help="folder of shards: x2, x4 and x4-degraded (see docs)")
    p.add_argument("--photos", nargs="+", type=Path, required=True, help="photographs to judge on, never trained on")
    p.add_argument("--codec", default="builtin", help="the one that made the shards")
    p.add_argument("--work", type=Path, required=True, help="networks and figures, kept for the next sitting")
    p.add_argument("--out", type=Path, required=True, help="where tables and plots are written")
    p.add_argument("--size", type=int, default=512, help="largest side of the photographs' crops, in pixels")
    p.add_argument("--bf16", action="store_true", help="the codec in bf16, twice as fast where the processor has it")
    p.add_argument("--every", type=int, default=1, metavar="N", help="only each N-th photograph")
    p.add_argument("--samples", type=int, help="to train each network on, instead of the table's number")
    p.add_argument("--compile", action="store_true", help="torch.compile: trains faster, needs a C++ compiler")
    p.add_argument("--train-only", action="store_true", help="do not judge yet")
    p.set_defaults(run=ablate)


def ablate(args: argparse.Namespace) -> None:
    unknown = [name for name in args.names if name not in TABLES and name not in FIGURES]
    if unknown:
        raise ConfigError(f"There is no ablation {', '.join(unknown)}; choose of {', '.join([*TABLES, *FIGURES])}.")
    if args.every < 1:
        raise ConfigError(f"every must be a whole number above 0, but it is {args.every!r}.")
    make_folder(args.work)
    make_folder(args.out)
    found = photo_names({path: place for place in args.photos for path in find_photos([place])})
    photos = dict(list(found.items())[:: args.every])
    codec = open_codec(args.codec).to(torch.bfloat16 if args.bf16 else torch.float32)
    for name in args.names:
        if name in FIGURES:
            FIGURES[name](args, photos, codec)
        elif args.train_only:
            for network in networks_of(TABLES[name]):
                trained(network, args.data, args.work, args.samples, args.compile)
        else:
            write_table(name, judged(name, args, codec, photos), args.out, _about(name, args, len(photos)))
        print(args.out / f"{name}.md")


def _about(name: str, args: argparse.Namespace, count: int) -> str:
    samples = sorted({args.samples or TRAININGS[row.network].samples for row in TABLES[name].rows})
    spoiled = ", then spoiled" if TABLES[name].degraded else ""
    return (
        f"Networks `lite`, trained on {' and '.join(f'{n:,}' for n in samples)} crops each. Means over {count} "
        f"photographs (centre crops of at most {args.size} px), reduced by {TABLES[name].scale}{spoiled}, against the "
        "photograph through the codec; ± half of the 95 % bootstrap interval."
    )
