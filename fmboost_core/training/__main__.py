"""`python -m fmboost_core.training encode | train | train-codec | recipe`: photographs to latents, latents to weights.

Under a launcher (`accelerate launch -m fmboost_core.training ...`) all processes and machines share the work.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ..errors import FMBoostError
from .recipe import RECIPES, load_recipe, recipe_names

REPORT_SECONDS = 10.0
DONE, REFUSED, INTERRUPTED = 0, 2, 130


# --- encode


def encode(args: argparse.Namespace) -> None:
    import torch

    from ..cli.device import choose_device
    from ..cli.processes import share
    from ..codecs.kl import open_codec
    from ..errors import require
    from ..files.checkpoint import describe, load_model
    from .data.encode import Encoding, ShardMaker
    from .data.photos import find_photos, plan_views

    require(args.limit is None or args.limit > 0, "limit", args.limit, "a whole number above 0")
    device, dtype = choose_device(args.device), torch.bfloat16 if args.bf16 else torch.float32
    codec = open_codec(args.codec).to(device, dtype)
    guide_codec = open_codec(args.guide_codec).to(device, dtype) if args.guide_codec else codec
    views = plan_views(find_photos(args.photos), seed=args.seed, mirror=args.mirror, reduce=args.reduce)
    views = views[: args.limit]
    name = Path(args.guide_codec).stem if args.guide_codec else ""
    model = load_model(args.boosted).to(device) if args.boosted else None
    # Two files of one name are two models.
    boosted = f"{model.spec.name} {describe(args.boosted)['sha256'][:16]}" if model else ""
    how = Encoding(
        args.scale, tuple(args.guides), name, args.degrade, args.seed, Path(args.codec).stem, boosted, args.disturb
    )
    maker = ShardMaker(views, how, codec, args.out, guide_codec=guide_codec, model=model, device=device)
    progress = _Progress(lambda done, total: f"{done}/{total} views")
    try:
        maker.make(share(maker.shards), progress)
    finally:
        for sentence in maker.skipped:
            print(f"skipped: {sentence}", file=sys.stderr)
    print(f"{len(views)} views, {len(maker.skipped)} skipped: {args.out}")


# --- train


def train(args: argparse.Namespace) -> None:
    from ..codecs.kl import open_codec
    from .data.latents import load_shards
    from .session import run_to_end
    from .train import finished, make_trainer, write
    from .validate import Validation

    recipe = load_recipe(args.recipe, args.set)
    data = load_shards(*args.latents)
    trainer, learning = make_trainer(recipe, data)
    look = None
    if args.validate:
        codec = open_codec(args.codec) if args.codec else None
        look = Validation(learning, load_shards(*args.validate), codec).look
    try:
        run_to_end(trainer, args.out, look, args.validate_every)
    finally:
        # Who stops a training early wants to see what it has learned; the same command goes on all the same.
        if trainer.step and trainer.host.is_main_process:
            write(finished(recipe, trainer.average, data.scale, args.out.stem), args.out)
            print(args.out)


def train_codec(args: argparse.Namespace) -> None:
    import torch

    from ..codecs.load import save_codec
    from ..codecs.tiny import tiny_codec
    from .data.latents import PhotoCrops, load_shards
    from .loop import Trainer
    from .losses.codec import CodecPasses, codec_loss
    from .session import run_to_end
    from .train import require_family

    recipe = load_recipe(args.recipe, args.set)
    data = load_shards(*args.latents)
    require_family(recipe, data)
    crops = PhotoCrops(data, recipe.data.crop)
    torch.manual_seed(recipe.loop.seed)
    passes = CodecPasses(tiny_codec(data.channels))
    facts = recipe.flat() | {"samples in the shards": len(data.samples)}
    trainer = Trainer(passes, crops.draw, codec_loss, recipe.loop, recipe.data.batch, facts=facts)
    run_to_end(trainer, args.out)
    if trainer.host.is_main_process:
        card = recipe.card
        save_codec(trainer.average.codec.cpu(), args.out, license=card.license, trained_on=card.trained_on)
        print(args.out)


class _Progress:
    """A line of progress every few seconds, with the time left."""

    def __init__(self, words: Callable[[int, int], str]) -> None:
        self.words = words
        self.started = self.told = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self.told > REPORT_SECONDS:
            self.told = now
            left = (now - self.started) * (total / done - 1)
            print(f"{self.words(done, total)}, {left / 60:.0f} min left", file=sys.stderr, flush=True)


# --- recipe


def recipe(args: argparse.Namespace) -> None:
    print((RECIPES / f"{args.name}.toml").read_text(encoding="utf-8"), end="")


# --- what can be typed


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fmboost_core.training", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_encode(commands.add_parser("encode", help="photographs to shards of latents, once; a killed run continues"))
    p = commands.add_parser("train", help="latents to a model; a killed run continues from OUT.training")
    _add_training(p, "lite")
    p.add_argument("--validate", type=Path, nargs="+", metavar="SHARDS", help="shards of photographs kept apart")
    p.add_argument("--validate-every", type=float, default=600.0, metavar="SECONDS")
    p.add_argument("--codec", help="decodes validation pictures, which TensorBoard shows (as encode's)")
    p.set_defaults(run=train)
    p = commands.add_parser("train-codec", help="photographs and latents to our tiny codec")
    _add_training(p, "codec")
    p.set_defaults(run=train_codec)
    p = commands.add_parser("recipe", help="print a recipe, to change it")
    p.add_argument("name", choices=recipe_names())
    p.set_defaults(run=recipe)
    return parser


def _add_encode(p: argparse.ArgumentParser) -> None:
    p.add_argument("photos", nargs="+", type=Path, help="files and folders")
    p.add_argument(
        "--codec", required=True,
        help="prefix of a TAESD pair, builtin, or diffusers:FOLDER (or diffusers:hf://OWNER/REPO, which downloads)",
    )  # fmt: skip
    p.add_argument("--guide-codec", help="another codec of the same latent space to make the guides with")
    p.add_argument("--guides", nargs="+", default=["latent", "image"], help="made from the latent, from the picture")
    p.add_argument("--scale", type=int, default=2, help="magnification to learn")
    p.add_argument("--out", type=Path, required=True, help="folder for the shards")
    p.add_argument("--no-mirror", dest="mirror", action="store_false", help="no mirrored copies")
    p.add_argument(
        "--reduce", type=float, nargs="+", default=[1.0], metavar="FACTOR", help="also look at smaller copies, as 1 2"
    )
    p.add_argument("--limit", type=int, metavar="N", help="only the first N views")
    p.add_argument("--degrade", action="store_true", help="spoil the small pictures with blur, noise and JPEG")
    p.add_argument(
        "--boosted", metavar="MODEL", help="small latents are this model's results, as in a second stage (name or file)"
    )
    p.add_argument("--disturb", action="store_true", help="disturb the small latents a little, as a generator's are")
    p.add_argument("--seed", type=int, default=0, help="of the order of the photographs, and of what spoils them")
    p.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    p.add_argument("--bf16", action="store_true", help="twice as fast where the processor has it")
    p.set_defaults(run=encode)


def _add_training(p: argparse.ArgumentParser, recipe: str) -> None:
    p.add_argument("latents", type=Path, nargs="+", help="folders of shards")
    p.add_argument("out", type=Path, help="the .safetensors to write; beside it a .csv and TensorBoard's files")
    p.add_argument("--recipe", default=recipe, help=f"a TOML file, or {', '.join(recipe_names())} (default: {recipe})")
    p.add_argument(
        "--set", action="append", default=[], metavar="SECTION.FIELD=VALUE", help="change a field of the recipe"
    )


def main() -> int:
    args = _parser().parse_args()
    try:
        args.run(args)
    except FMBoostError as error:
        print(f"error: {error}", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:
        print("Stopped; the same command continues.", file=sys.stderr)
        return INTERRUPTED
    return DONE


if __name__ == "__main__":
    sys.exit(main())
