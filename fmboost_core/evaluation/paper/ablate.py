"""Tables of the ablations: the evaluation of their networks, and the files written.

Figures are kept in the work folder by network and photograph, so a table can be continued, and tables share them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from ...codecs.protocol import Codec
from ...errors import ConfigError
from ...files.weight_file import weights_digest
from ...metrics.fidelity import latent_mse
from ...model import Model
from ...sampling.guide import image_guide, pixel_upsample
from ...training.data.degrade import plan
from ...training.data.encode import reduced
from ..artifacts import Artifacts
from ..comparison import Comparison, MakeImage, MethodImage, decoded_image
from ..markdown import markdown
from ..methods import BASELINES, bicubic
from ..output import write_json, write_text
from ..photographs import EvaluationConfig, PreparedPhoto, decoded, load_photo, prepare
from ..plots import bar_plot, curve, figure_label, series_over_nfe
from ..results import Results
from ..run import run
from ..summary import Summary, summarise
from .sampler import Sampler
from .setup import AblationSetup
from .shared_codec import SharedCodec
from .tables import TABLES, TRAININGS, Table, TableRow

METRICS = ("psnr", "ssim", "haarpsi", "gmsd", "swd", "spectrum", "detail", "colour")
PLOTTED = ("psnr", "latent_mse", "detail", "swd")


def evaluate_table(
    name: str, networks: Mapping[str, Model], setup: AblationSetup, progress: Callable[[int, int], None]
) -> Summary:
    """The table's figures by the rows' names, measured where they are not kept yet. networks: the table's, by name.

    progress(done, total) counts photographs. Skipped photographs are reported.
    """
    table = TABLES[name]
    folder = figures_folder(table, setup.work)
    results = Results(
        folder,
        {
            "codec": Path(setup.codec_name).name, "scale": table.scale, "size": setup.size, "metrics": METRICS,
            "kind": table.kind, "bf16": setup.bf16,
        },
    )  # fmt: skip
    for network, model in networks.items():
        results.claim(network, weights_digest(model.network, model.guide))
    run(table_comparison(table, networks, setup), results, METRICS, Artifacts(folder), progress)
    return _summary(table, results, setup)


def figures_folder(table: Table, work: Path) -> Path:
    """The folder of the figures, which tables with the same small images share."""
    return work / f"judged-x{table.scale}-{table.kind}{'-degraded' * table.degraded}"


def method_of(row: TableRow) -> str:
    """The row's method in the kept figures."""
    return f"{row.network}, {row.solver} {row.nfe}"


def table_comparison(table: Table, networks: Mapping[str, Model], setup: AblationSetup) -> Comparison:
    """The table's rows, bicubic interpolation and the guide alone, on the setup's photographs."""
    config = EvaluationConfig(table.scale, setup.size, metrics=METRICS)
    samplers = {method_of(row): Sampler(networks[row.network], row.nfe, row.solver, table.kind) for row in table.rows}
    seeds = {path: number for number, path in enumerate(setup.photos.values())}

    def open_photo(path: Path) -> tuple[Tensor, Mapping[str, MakeImage]]:
        codec = SharedCodec(setup.codec)
        photo = prepare_degraded(path, codec, config, seeds[path]) if table.degraded else prepare(path, codec, config)
        images: dict[str, MakeImage] = {
            "bicubic": lambda: MethodImage(bicubic(photo), {}),
            "guide": lambda: decoded_image(_guide(photo, codec, table.kind), photo, codec),
        }
        images |= {name: partial(_sampled_image, sampler, photo, codec) for name, sampler in samplers.items()}
        return photo.reference, images

    return Comparison(setup.photos, [*BASELINES, *samplers], open_photo)


def prepare_degraded(path: Path, codec: Codec, config: EvaluationConfig, seed: int) -> PreparedPhoto:
    """`prepare` with a degraded small image; seed: of the degradation."""
    photo = load_photo(path, config.size, 2 * codec.downscale_factor * config.scale)
    small, latent = reduced(photo, config.scale, plan(seed, config.scale)), codec.encode(photo)
    return PreparedPhoto(small, codec.encode(small), latent, decoded(codec, latent))


def _guide(photo: PreparedPhoto, codec: Codec, kind: str) -> Tensor:
    if kind == "image":
        return image_guide(photo.small, codec, photo.size)
    return pixel_upsample(photo.low, codec, photo.size)


def _sampled_image(sampler: Sampler, photo: PreparedPhoto, codec: Codec) -> MethodImage:
    """A row's image of a photograph, the latent's error, and the NFE of all stages together."""
    count = 0

    def counted() -> None:
        nonlocal count
        count += 1

    latent = sampler(photo, codec, counted)
    figures = {"latent_mse": latent_mse(latent, photo.latent), "evaluations": float(count)}
    return MethodImage(decoded(codec, latent), figures)


def _summary(table: Table, results: Results, setup: AblationSetup) -> Summary:
    methods = {"bicubic": "bicubic", "guide": "guide", **{row.name: method_of(row) for row in table.rows}}
    complete = [photo for photo in setup.photos if all(results.has(method, photo) for method in methods.values())]
    for photo in setup.photos.keys() - set(complete):
        setup.report(f"skipped: {results.skipped.get(photo, photo)}")
    if not complete:
        raise ConfigError("None of the photographs could be evaluated; the skipped ones are listed above.")
    return summarise(
        {row: {photo: results.methods[method][photo] for photo in complete} for row, method in methods.items()}
    )


def write_table(name: str, summary: Summary, setup: AblationSetup) -> None:
    """Write OUT/NAME.md, NAME.json and the plots."""
    table, out = TABLES[name], setup.out
    plots = [f"![{metric}]({name}-{metric}.png)" for metric in PLOTTED]
    shown = {row: _shown_figures(figures, summary) for row, figures in summary.items()}
    text = f"# {name}\n\n{table.question}\n\n{_about(table, setup)}\n\n{markdown(shown)}\n{' '.join(plots)}\n"
    write_text(out / f"{name}.md", text)
    write_json(out / f"{name}.json", {r: {k: vars(v) for k, v in figures.items()} for r, figures in summary.items()})
    for metric in PLOTTED:
        values = {row: figures[metric] for row, figures in summary.items() if metric in figures}
        _plot(out / f"{name}-{metric}.png", metric, values, table)


def _about(table: Table, setup: AblationSetup) -> str:
    samples = sorted({setup.samples or TRAININGS[row.network].samples for row in table.rows})
    degraded = " and degraded" if table.degraded else ""
    return (
        f"Networks `lite`, trained on {' and '.join(f'{n:,}' for n in samples)} crops each. Means over "
        f"{len(setup.photos)} photographs (centre crops of at most {setup.size} px), reduced by {table.scale}"
        f"{degraded}, against the photograph through the codec; ± half of the 95 % bootstrap interval."
    )


def _shown_figures(figures: Mapping[str, Any], summary: Summary) -> dict[str, Any]:
    """The figures of a row; the NFE has a column only where an adaptive solver decides it."""
    return {k: v for k, v in figures.items() if k != "evaluations" or any("dopri5" in row for row in summary)}


def _plot(path: Path, metric: str, values: Mapping[str, Any], table: Table) -> None:
    if table.curves:
        nfes, series, levels = series_over_nfe(values)
        if nfes:
            levels.pop("bicubic", None)
            curve(path, nfes, series, x_label="NFE", y_label=figure_label(metric), log_x=True, levels=levels)
            return
    bar_plot(path, metric, values)
