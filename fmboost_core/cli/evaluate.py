"""The command `evaluate`: metrics of models and images over photographs, and close looks at one model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, require
from ..metrics.meanings import DEFAULT_METRICS, METRICS
from .arguments import add_device

if TYPE_CHECKING:
    from ..codecs.protocol import Codec
    from ..evaluation.comparison import Comparison
    from ..evaluation.perceptual import PerceptualModels
    from ..evaluation.photographs import EvaluationConfig
    from ..evaluation.results import Results
    from ..model import Model

STOPPED = "Stopped; the same command continues."


def add_command(commands: Any) -> None:
    """Add `evaluate` with its parts to a parser's subcommands."""
    parser = commands.add_parser("evaluate", help="measure models and images on photographs")
    parser.description = "Measure models and images on photographs. `fmboost ablate` makes the paper's comparisons."
    parts = parser.add_subparsers(title="parts", metavar="PART", required=True)
    _add_run(parts.add_parser("run", help="metrics of models, or of finished images"))
    _add_latents(parts.add_parser("latents", help="each channel's mean and standard deviation against the references'"))
    _add_floor(parts.add_parser("floor", help="the error of one evaluation, and the variance of the flow's results"))
    _add_stability(parts.add_parser("stability", help="several stages in a row: colours, patterns, NaN"))


def _add_run(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("models", nargs="*", metavar="MODEL", help="bundled name, file or hf:// address")
    add("--photos", nargs="+", type=Path, metavar="PLACE", help="files and folders of photographs, for models")
    add("--codec", default="builtin", help="prefix of a TAESD pair, or builtin")
    add("--scale", type=int, default=2, help="downscale factor of the small images (default 2)")
    add("--nfe", type=int, nargs="+", metavar="N", help="NFE, each a method (default: the model's own)")
    add("--noise-step", type=int, nargs="+", metavar="N", help="noise step, each a method (default: the model's own)")
    add("--strength", type=float, nargs="+", metavar="S", help="strength, each a method (default: the model's own)")
    add("--solver", default="euler")
    add("--restore", action="store_true", help="also evaluate the restored images")
    add("--seed", type=int, default=0, help="of the noise")
    add("--size", type=int, default=512, help="largest side of the centre crops, in pixels (default 512)")
    add(
        "--against", default="decoded", metavar="decoded|photo",
        help="the reference: the photograph through the codec (default), or as it is",
    )  # fmt: skip
    add_device(parser)
    add("--pictures", nargs="+", type=Path, metavar="FOLDER", help="instead of models: finished images, by method")
    add("--truth", type=Path, metavar="FOLDER", help="their reference images, of the same names")
    add("--every", type=int, default=1, metavar="N", help="only each N-th photograph")
    add("--metrics", nargs="+", default=DEFAULT_METRICS, metavar="NAME", help=", ".join(METRICS))
    add("--inception", type=Path, metavar="FILE", help="TorchScript feature network: adds FID and p-FID")
    add("--patches", type=int, default=16, help="crops of an image for p-FID; 0 for none (default 16)")
    add("--patch-size", type=int, default=64, help="their side in pixels (default 64)")
    add("--clip", metavar="DIR", help="folder of a transformers CLIP, or hf://owner/name: adds CLIP-IQA")
    add("--out", type=Path, required=True, help="folder of the results; an interrupted run is continued")
    parser.set_defaults(run=_run, stopped=STOPPED)


def _add_latents(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nfe", type=int, nargs="+", default=[1, 4], metavar="N", help="default 1 4")
    _add_crops(parser)
    _add_inputs(parser)
    parser.set_defaults(run=_latents)


def _add_floor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--nfe", type=int, nargs="+", default=[8, 32], metavar="N", help="NFE of the results (default 8 32)"
    )
    _add_crops(parser)
    _add_inputs(parser)
    parser.set_defaults(run=_floor)


def _add_stability(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--stages", type=int, default=3, help="default 3")
    add("--size", type=int, default=128, help="side of the small images in pixels (default 128)")
    add("--disturb", action="store_true", help="add errors to the first latents, as a generator's have")
    add("--types", nargs="+", metavar="TYPE", help="of the model's weights: fp32, fp16, bf16 (default: all possible)")
    add("--upscale-model", metavar="builtin|NAME|FILE", help="enlarges the images that guides are made of, as in hosts")
    add("--out", type=Path, required=True, help="folder of the table and the plot")
    _add_inputs(parser)
    parser.set_defaults(run=_stability)


def _add_crops(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--scale", type=int, default=2, help="downscale factor of the small images (default 2)")
    parser.add_argument("--size", type=int, default=512, help="largest side of the centre crops, in pixels")


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    """The model, the codec and the photographs of a close look at one model."""
    parser.add_argument("model", metavar="MODEL", help="bundled name, file or hf:// address")
    parser.add_argument("--photos", nargs="+", type=Path, required=True, metavar="PLACE")
    parser.add_argument("--codec", default="builtin", help="builtin, prefix of a TAESD pair, or a VAE of diffusers")
    parser.add_argument("--bf16", action="store_true", help="the codec in bf16")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N photographs")


# --- run


def _run(args: argparse.Namespace) -> None:
    from ..evaluation.artifacts import SHEET_ROWS, Artifacts
    from ..evaluation.perceptual import PerceptualModels
    from ..evaluation.photographs import EvaluationConfig
    from ..evaluation.report import write_report
    from ..evaluation.run import run
    from .progress import ProgressBar

    config = EvaluationConfig(args.scale, args.size, args.against, tuple(args.metrics))
    models = PerceptualModels.load(args.inception, args.patches, args.patch_size, args.clip)
    open_comparison = _compare_images if args.pictures else _compare_models
    comparison, results = open_comparison(args, config, models)
    artifacts = Artifacts(args.out, models)
    with ProgressBar("Evaluating") as bar:
        run(comparison, results, config.metrics, artifacts, bar)
    print(write_report(results, artifacts, list(comparison.photos)[:SHEET_ROWS]), end="")


def _compare_images(
    args: argparse.Namespace, config: EvaluationConfig, models: PerceptualModels
) -> tuple[Comparison, Results]:
    from ..evaluation.comparison import image_comparison
    from ..evaluation.results import Results

    if args.models or args.photos or not args.truth:
        raise ConfigError("Finished images take --pictures and --truth; leave out the models and --photos.")
    comparison = image_comparison(args.pictures, args.truth, args.every)
    return comparison, Results(args.out, {"metrics": config.metrics, **models.settings()})


def _compare_models(
    args: argparse.Namespace, config: EvaluationConfig, perceptual: PerceptualModels
) -> tuple[Comparison, Results]:
    from ..codecs.load import BUILTIN, load_codec
    from ..evaluation.comparison import model_comparison
    from ..evaluation.methods import SamplingGrid, load_models
    from ..evaluation.photographs import every_nth, find_named
    from ..evaluation.results import Results
    from ..files.weight_file import weights_digest
    from .device import choose_device

    if not args.models or not args.photos or args.truth:
        raise ConfigError("Give models and --photos to evaluate them on, or --pictures and --truth.")
    photos, device = every_nth(find_named(args.photos), args.every), choose_device(args.device)
    models = load_models(args.models, device)
    family = next(iter(models.values())).spec.family
    codec = load_codec(args.codec, family if args.codec == BUILTIN else None).to(device)
    settings = {
        "codec": Path(args.codec).name, "codec_weights": weights_digest(codec), "solver": args.solver,
        "seed": args.seed, "scale": config.scale, "size": config.size, "truth": config.reference,
        "metrics": config.metrics, **perceptual.settings(),
    }  # fmt: skip
    results = Results(args.out, settings)
    for label, model in models.items():
        own = "" if model.spec.strength == 1 else f" of strength {model.spec.strength:g}"
        results.claim(label, weights_digest(model.network, model.guide) + own)
    grid = SamplingGrid(
        tuple(args.nfe or ()), tuple(args.noise_step or ()), tuple(args.strength or ()), args.solver, args.seed,
        args.restore,
    )  # fmt: skip
    methods, restored = grid.methods(models, codec)
    return model_comparison(photos, methods, codec, config, device, restored), results


# --- close looks at one model


def _open_inputs(args: argparse.Namespace) -> tuple[Model, Codec, dict[str, Path]]:
    """The model, the codec, and the photographs by name."""
    import torch

    from ..codecs.kl import open_codec
    from ..evaluation.photographs import find_named
    from ..files.checkpoint import load_model

    require(args.limit is None or args.limit > 0, "limit", args.limit, "a whole number above 0")
    photos = dict(list(find_named(args.photos).items())[: args.limit])
    model = load_model(args.model)
    codec = open_codec(args.codec, model.spec.family).to(torch.bfloat16 if args.bf16 else torch.float32)
    return model, codec, photos


def _latents(args: argparse.Namespace) -> None:
    from ..evaluation.latents import channel_statistics, latent_pairs
    from ..evaluation.photographs import EvaluationConfig
    from .progress import ProgressBar

    model, codec, photos = _open_inputs(args)
    with ProgressBar("Photographs") as bar:
        config = EvaluationConfig(args.scale, args.size)
        pairs = latent_pairs(model, codec, list(photos.values()), config, args.nfe, bar)
    print(
        f"{model.spec.name} on {len(photos)} photographs at {args.scale}x: each channel's mean minus the reference "
        f"latents', and standard deviation over theirs.\n\n{channel_statistics(pairs)}",
        end="",
    )


def _floor(args: argparse.Namespace) -> None:
    from ..evaluation.floor import error_floor
    from ..evaluation.photographs import EvaluationConfig
    from .progress import ProgressBar

    model, codec, photos = _open_inputs(args)
    with ProgressBar("Photographs") as bar:
        config = EvaluationConfig(args.scale, args.size)
        floor = error_floor(model, codec, list(photos.values()), config, args.nfe, bar)
    print(
        f"{model.spec.name} on {len(photos)} photographs at {args.scale}x, mean squares over PSU's error.\n\n"
        f"error of one evaluation: {floor.one_evaluation:.3f}"
    )
    for nfe, variance in floor.variances.items():
        print(f"half the squared distance of two results, nfe {nfe}: {variance:.3f}")


def _stability(args: argparse.Namespace) -> None:
    from ..evaluation.output import make_folder
    from ..evaluation.stability import CascadeTest, choose_types, run_cascades, write_stability
    from ..files.checkpoint import load_model
    from ..files.upscale_model import load_upscale_model
    from .progress import ProgressBar

    types, test = choose_types(args.types), CascadeTest(args.stages, args.size, args.disturb)
    make_folder(args.out)
    model, codec, photos = _open_inputs(args)
    models = {name: load_model(args.model).to(dtype=dtype) for name, dtype in types.items()}
    enlarger = load_upscale_model(args.upscale_model) if args.upscale_model else None
    with ProgressBar("Photographs") as bar:
        found = run_cascades(models, codec, photos, test, bar, enlarger)
    name = enlarger.name if enlarger else ""
    print(write_stability(found, model, test, next(iter(types)), args.out, name), end="")
