"""`run`: models on photographs, or pictures that are there already against their originals, to a folder of results."""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..cli.device import choose_device
from ..cli.progress import ProgressBar
from ..codecs.load import load_codec
from ..codecs.protocol import Codec
from ..errors import ConfigError, ImageError
from ..files.checkpoint import load_model
from ..files.weight_file import sha256_of
from ..imaging.picture_file import read_picture
from ..metrics.image_metrics import DEFAULT_METRICS, MEANINGS, METRICS, latent_mse, measure
from ..model import Model
from ..sampling.restore import restore
from ..training.data.photos import find_photos
from .features import Patches, load_clip, load_feature_network
from .judge import BASELINES, TRUTHS, Case, Sample, Setting, bicubic, boosted, decoded, guide_of, prepare
from .report import Summary, against, bars, contact_sheet, curve, markdown, summarise, write_text
from .results import Results, digest, photo_names
from .statistics import Interval
from .views import SHEET_ROWS, TRUTH, Views

SAVE_SECONDS = 10.0

Made = tuple[Tensor, dict[str, float]]  # a picture (1,3,H,W) in [-1,1], and what is known of it besides


@dataclass(frozen=True)
class Task:
    """What is to be judged: photographs by name, methods by name, and how a photograph is opened.

    open(path) gives the true picture and, for each method, what makes its picture.
    """

    photos: Mapping[str, Path]
    methods: Sequence[str]
    open: Callable[[Path], tuple[Tensor, Mapping[str, Callable[[], Made]]]]


def judge_all(
    task: Task, results: Results, metrics: Sequence[str], views: Views, progress: Callable[[int, int], None]
) -> None:
    """Judge what the results lack, photograph by photograph, and keep it even when stopped.

    A photograph that cannot be read or compared is skipped and noted. progress(done, total) counts photographs.
    """
    saved = time.monotonic()
    try:
        for number, (name, path) in enumerate(task.photos.items(), start=1):
            try:
                rows = _judge_photo(task, results, metrics, views, number <= SHEET_ROWS, name, path)
                results.add(name, rows)
            except ImageError as error:
                results.skipped[name] = str(error)
            if time.monotonic() - saved > SAVE_SECONDS:
                results.save()
                saved = time.monotonic()
            progress(number, len(task.photos))
    finally:
        results.save()


def _judge_photo(
    task: Task, results: Results, metrics: Sequence[str], views: Views, shown: bool, name: str, path: Path
) -> dict[str, dict[str, float]]:
    """The figures of the methods that have none of this photograph yet."""
    missing = [m for m in task.methods if not (results.has(m, name) and views.kept(m, name))]
    if not missing:
        return {}
    truth, makers = task.open(path)
    truth = truth.float().cpu()
    if not views.kept(TRUTH, name):
        views.keep(TRUTH, name, truth)
    if shown:
        views.keep_crop(TRUTH, name, truth, truth)
    rows: dict[str, dict[str, float]] = {}
    for method in missing:
        picture, known = makers[method]()
        picture = picture.float().cpu()  # all devices' pictures are measured alike
        rows[method] = {**known, **measure(picture, truth, metrics), **views.rate(picture, path)}
        views.keep(method, name, picture)
        if shown:
            views.keep_crop(method, name, picture, truth)
    return rows


# --- the two tasks


def model_task(
    photos: Mapping[str, Path],
    samples: Mapping[str, Sample],
    codec: Codec,
    setting: Setting,
    device: torch.device,
    restoring: Mapping[str, Sample] | None = None,
) -> Task:
    """Enlarge photographs that were reduced, with each sample by the name of its method, and with the baselines.

    restoring: more samples, whose pictures are restored by the small latent's (`upsample.restore`).
    """
    restoring = restoring or {}

    def make(sample: Sample, case: Case) -> Made:
        latent = sample(case.small, case.low, case.size)
        return decoded(codec, latent), {"latent_mse": latent_mse(latent, case.latent)}

    def make_restored(sample: Sample, case: Case) -> Made:
        return restore(make(sample, case)[0], decoded(codec, case.low)), {}

    def open_photo(path: Path) -> tuple[Tensor, dict[str, Callable[[], Made]]]:
        case = prepare(path, codec, setting, device)
        samples_of = {"guide": guide_of(codec), **samples}
        makers = {name: partial(make, sample, case) for name, sample in samples_of.items()}
        makers |= {name: partial(make_restored, sample, case) for name, sample in restoring.items()}
        return case.truth, {"bicubic": lambda: (bicubic(case), {}), **makers}

    return Task(photos, [*BASELINES, *samples, *restoring], open_photo)


def picture_task(folders: Sequence[Path], truth: Path, every: int = 1) -> Task:
    """Pictures that are there already, a folder a method, against the originals of the same names whatever the suffix.

    Pictures that lack an original are not looked at; originals that lack a picture are skipped and noted.
    """
    if len({TRUTH, *(folder.name for folder in folders)}) <= len(folders):
        raise ConfigError(f"Folders of pictures are methods by their names, which must differ and not be {TRUTH}.")
    made = {folder.name: _by_stem(folder) for folder in folders}
    originals = _by_stem(truth)
    if not any(set(originals) & set(found) for found in made.values()):
        raise ConfigError(f"No picture in {', '.join(map(str, folders))} has the name of one in {truth}.")

    def read(method: str, stem: str) -> Made:
        if stem not in made[method]:
            raise ImageError(f"{method} has no picture named {stem}.")
        return read_picture(made[method][stem]).rgb, {}

    def open_photo(path: Path) -> tuple[Tensor, dict[str, Callable[[], Made]]]:
        stem = path.relative_to(truth).with_suffix("").as_posix()
        return read_picture(path).rgb, {method: partial(read, method, stem) for method in made}

    return Task(_thinned(originals, every), list(made), open_photo)


def _by_stem(folder: Path) -> dict[str, Path]:
    """Pictures by their path in the folder without the suffix."""
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder of pictures.")
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in find_photos([folder])}


def _thinned(photos: Mapping[str, Path], every: int) -> dict[str, Path]:
    if every < 1:
        raise ConfigError(f"every must be a whole number above 0, but it is {every!r}.")
    return dict(list(photos.items())[::every])


def load_models(names: Sequence[str], device: torch.device) -> dict[str, Model]:
    """Models by the names of their files."""
    models: dict[str, Model] = {}
    for name in names:
        label = Path(name.partition("@")[0]).stem if "/" in name or Path(name).suffix else name
        if label in models:
            raise ConfigError(f"Two models would both be called {label} in the results; rename one.")
        models[label] = load_model(name).to(device)
    return models


def method_name(model: str, nfe: int) -> str:
    return f"{model}, nfe {nfe}"


# --- the report


def write_report(results: Results, views: Views, shown: Sequence[str]) -> str:
    """Write results.json, results.md and the plots beside it; returns the table.

    shown: the photographs whose crops may be laid side by side.
    """
    photos = results.photos()
    results.sets = {m: found for m in results.methods if (found := views.distances(m, photos))}
    results.save()
    summary = summarise(results.methods)
    table = _tables(results, summary, len(photos))
    folder = results.path.parent
    write_text(folder / "results.md", table)
    _plot(folder, summary)
    rows = views.panels([TRUTH, *results.methods], shown)
    if rows:
        contact_sheet(folder / "crops.png", rows)
    return table


def _tables(results: Results, summary: Summary, count: int) -> str:
    rows: dict[str, dict[str, Interval | float]] = {
        method: {**figures, **results.sets.get(method, {})} for method, figures in summary.items()
    }
    known = ", ".join(f"{k} {v}" for k, v in results.settings.items() if k != "metrics" and v is not None)
    text = f"Means over {count} photographs and half of their 95% intervals. {known}.\n\n{markdown(rows)}"
    if "guide" in results.methods and len(results.methods) > 1:
        text += "\nAgainst the guide: ratios of what is better lower, differences of what is better higher.\n\n"
        text += markdown(against(results.methods, "guide"), legend=False)
    if results.skipped:
        text += "\nSkipped:\n\n" + "".join(f"- {name}: {why}\n" for name, why in results.skipped.items())
    return text


def _plot(folder: Path, summary: Summary) -> None:
    """A plot for each figure: over evaluations where all models have several, else bars."""
    for name in dict.fromkeys(name for figures in summary.values() for name in figures):
        values = {method: figures[name] for method, figures in summary.items() if name in figures}
        label = f"{name}, {MEANINGS[name].unit}" if MEANINGS[name].unit else name
        nfes, series, levels = series_over_evaluations(values)
        if len(nfes) > 1 and series:
            curve(folder / f"{name}.png", nfes, series, x_label="evaluations", y_label=label, log_x=True, levels=levels)
        else:
            bars(folder / f"{name}.png", values, x_label=label, mark=1.0 if MEANINGS[name].better == "one" else None)


def series_over_evaluations(
    values: Mapping[str, Interval],
) -> tuple[list[int], dict[str, list[Interval]], dict[str, float]]:
    """The numbers of evaluations, each model's figures at them, and the other methods' means.

    No series where the models were not judged at the same numbers.
    """
    found: dict[str, dict[int, Interval]] = {}
    levels: dict[str, float] = {}
    for method, value in values.items():
        match = re.fullmatch(r"(.+), nfe (\d+)", method)
        if match:
            found.setdefault(match[1], {})[int(match[2])] = value
        else:
            levels[method] = value.mean
    nfes = sorted(next(iter(found.values()), {}))
    if any(sorted(points) != nfes for points in found.values()):
        return [], {}, levels
    return nfes, {model: [points[n] for n in nfes] for model, points in found.items()}, levels


# --- the command


def add_command(commands: Any) -> None:
    """Add `run` to a parser's subcommands."""
    p: argparse.ArgumentParser = commands.add_parser("run", help="judge models, or pictures that are there already")
    p.add_argument("models", nargs="*", metavar="MODEL", help="bundled name, file or hf:// address")
    p.add_argument("--photos", nargs="+", type=Path, metavar="PLACE", help="files and folders to judge models on")
    p.add_argument("--codec", default="builtin", help="prefix of a TAESD pair, or builtin")
    p.add_argument("--scale", type=int, default=2, help="by how much photographs are reduced and enlarged again")
    p.add_argument("--nfe", type=int, nargs="+", help="evaluations, each a method (default: the model's own)")
    p.add_argument(
        "--noise-step", type=int, nargs="+", metavar="N",
        help="of the start, each a method (default: the model's own)",
    )  # fmt: skip
    p.add_argument("--solver", default="euler")
    p.add_argument("--restore", action="store_true", help="judge the restored pictures too")
    p.add_argument("--seed", type=int, default=0, help="of the noise")
    p.add_argument("--size", type=int, default=512, help="largest side of the photographs' crops, in pixels")
    p.add_argument("--against", choices=TRUTHS, default="decoded", help="the truth: through the codec, or as it is")
    p.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"))
    p.add_argument("--pictures", nargs="+", type=Path, metavar="FOLDER", help="instead of models: pictures to judge")
    p.add_argument("--truth", type=Path, metavar="FOLDER", help="their originals, of the same names")
    p.add_argument("--every", type=int, default=1, metavar="N", help="only each N-th photograph")
    p.add_argument("--metrics", nargs="+", default=DEFAULT_METRICS, metavar="NAME", help=", ".join(METRICS))
    p.add_argument("--inception", type=Path, metavar="FILE", help="TorchScript feature network: adds FID and p-FID")
    p.add_argument("--patches", type=int, default=16, help="crops of a picture for p-FID; 0 for none")
    p.add_argument("--patch-size", type=int, default=64, help="their side in pixels")
    p.add_argument("--clip", metavar="DIR", help="folder of a transformers CLIP, or hf://owner/name: adds CLIP-IQA")
    p.add_argument("--out", type=Path, required=True, help="folder of the results; a run that is there is continued")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    setting = Setting(args.scale, args.size, args.against, args.metrics)
    views = _views(args)
    if args.pictures:
        task, results = _pictures(args, setting, views)
    else:
        task, results = _models(args, setting, views)
    with ProgressBar("Judging") as bar:
        judge_all(task, results, setting.metrics, views, bar)
    print(write_report(results, views, list(task.photos)[:SHEET_ROWS]), end="")


def _views(args: argparse.Namespace) -> Views:
    network = load_feature_network(args.inception) if args.inception else None
    patches = Patches(args.patches, args.patch_size) if network and args.patches else None
    return Views(args.out, network, patches, load_clip(args.clip) if args.clip else None)


def _measured(args: argparse.Namespace, setting: Setting, views: Views) -> dict[str, Any]:
    """What the figures depend on, whatever the pictures are."""
    return {
        "metrics": setting.metrics,
        "inception": sha256_of(args.inception)[:16] if views.network else None,
        "patches": f"{views.patches.count} of {views.patches.side}" if views.patches else None,
        "clip": args.clip,
    }


def _pictures(args: argparse.Namespace, setting: Setting, views: Views) -> tuple[Task, Results]:
    if args.models or args.photos or not args.truth:
        raise ConfigError("Pictures that are there already take --pictures and --truth, and no models and no --photos.")
    task = picture_task(args.pictures, args.truth, args.every)
    return task, Results(args.out, _measured(args, setting, views))


def _models(args: argparse.Namespace, setting: Setting, views: Views) -> tuple[Task, Results]:
    if not args.models or not args.photos or args.truth:
        raise ConfigError("Give models and --photos to judge them on, or --pictures and --truth.")
    photos = _thinned(photo_names(_found(args.photos)), args.every)
    device = choose_device(args.device)
    codec = load_codec(args.codec).to(device)
    models = load_models(args.models, device)
    made = {"codec": Path(args.codec).name, "codec_weights": digest(codec), "solver": args.solver, "seed": args.seed}
    made |= {"scale": setting.scale, "size": setting.size, "truth": setting.truth}
    results = Results(args.out, made | _measured(args, setting, views))
    samples: dict[str, Sample] = {}
    restoring: dict[str, Sample] = {}
    for label, model in models.items():
        results.claim(label, digest(model.network))
        for nfe, step in product(args.nfe or [model.spec.nfe], args.noise_step or [None]):
            sample = boosted(model, codec, nfe=nfe, noise_step=step, solver=args.solver, seed=args.seed)
            name = label if step is None else f"{label} from step {step}"
            samples[method_name(name, nfe)] = sample
            if args.restore:
                restoring[method_name(f"{name} restored", nfe)] = sample
    return model_task(photos, samples, codec, setting, device, restoring), results


def _found(places: Iterable[Path]) -> dict[Path, Path]:
    """Each photograph with the place it was found in."""
    return {path: place for place in places for path in find_photos([place])}
