"""The commands `train`, `train-codec`, `train-guide` and `train-upscale-model`: from shards to files of weights."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..training.recipes import recipe_names
from .encode import CONTINUES


def add_command(commands: Any) -> None:
    """Add the commands to a parser's subparsers."""
    parser = commands.add_parser("train", help="train a model on shards of latents")
    parser.description = "Train a model on shards of latents. A stopped run continues from its checkpoint (.training)."
    _add_common(parser, "lite")
    add = parser.add_argument
    add("--validate", type=Path, nargs="+", metavar="FOLDER", help="shards of photographs that are not trained on")
    add("--validate-every", type=float, default=600.0, metavar="SECONDS", help="time between validations (default 600)")
    add("--codec", help="decodes validation pictures, which TensorBoard shows (named as for the command encode)")
    parser.set_defaults(run=run, stopped=CONTINUES)

    parser = commands.add_parser("train-codec", help="train a tiny codec on shards of latents and their photographs")
    parser.description = "Train a tiny codec on shards of latents and the photographs that they were encoded from."
    _add_common(parser, "codec")
    parser.set_defaults(run=run_codec, stopped=CONTINUES)

    parser = commands.add_parser("train-guide", help="train a guide network on shards of latents")
    parser.description = (
        "Train a guide network, which makes guides of small latents without a VAE, to give those of pixel-space "
        "upsampling. `fmboost train` goes on from it with start.guide, together with the flow."
    )
    _add_common(parser, "guide")
    parser.set_defaults(run=run_guide, stopped=CONTINUES)

    parser = commands.add_parser("train-upscale-model", help="train an upscale model on shards with images")
    parser.description = (
        "Train an upscale model, a compact or an RRDB network of Real-ESRGAN, on shards of `fmboost encode --images`, "
        "of one or several latent families."
    )
    _add_common(parser, "upscale-model")
    parser.set_defaults(run=run_upscale_model, stopped=CONTINUES)


def _add_common(parser: argparse.ArgumentParser, recipe: str) -> None:
    add = parser.add_argument
    add("latents", type=Path, nargs="+", help="folders of shards")
    add("out", type=Path, help="the .safetensors file to write; a .csv and TensorBoard's files are beside it")
    add("--recipe", default=recipe, help=f"a TOML file, or {', '.join(recipe_names())} (default: {recipe})")
    add("--set", action="append", default=[], metavar="SECTION.FIELD=VALUE", help="change a field of the recipe")


def run(args: argparse.Namespace) -> int:
    from ..codecs.kl import open_codec
    from ..training.data.latents import load_shards
    from ..training.recipe import load_recipe
    from ..training.session import run_to_end
    from ..training.train import finished, make_trainer, write
    from ..training.validate import Validation

    recipe = load_recipe(args.recipe, args.set)
    data = load_shards(*args.latents)
    trainer, task = make_trainer(recipe, data)
    validate = None
    if args.validate:
        codec = open_codec(args.codec, recipe.card.family) if args.codec else None
        validate = Validation(task, load_shards(*args.validate), codec)
    try:
        perception = task.perception
        run_to_end(trainer, args.out, validate, args.validate_every, lambda: perception.parts if perception else {})
    finally:
        # A training that is stopped early leaves a model to try; the same command continues all the same.
        if trainer.step and trainer.host.is_main_process:
            write(finished(recipe, trainer.average, data.scale, args.out.stem), args.out)
            print(args.out)
    return 0


def run_codec(args: argparse.Namespace) -> int:
    from ..codecs.load import save_codec
    from ..training.data.latents import load_shards
    from ..training.recipe import load_recipe
    from ..training.session import run_to_end
    from ..training.train import make_codec_trainer

    recipe = load_recipe(args.recipe, args.set)
    trainer = make_codec_trainer(recipe, load_shards(*args.latents))
    run_to_end(trainer, args.out)
    if trainer.host.is_main_process:
        card = recipe.card
        save_codec(trainer.average.codec.cpu(), args.out, license=card.license, trained_on=card.trained_on)
        print(args.out)
    return 0


def run_guide(args: argparse.Namespace) -> int:
    from ..files.guide_file import save_guide
    from ..training.data.latents import load_shards
    from ..training.guide import make_guide_trainer
    from ..training.recipe import load_recipe
    from ..training.session import run_to_end

    recipe = load_recipe(args.recipe, args.set)
    trainer = make_guide_trainer(recipe, load_shards(*args.latents))
    try:
        run_to_end(trainer, args.out)
    finally:
        if trainer.step and trainer.host.is_main_process:
            save_guide(trainer.average, args.out)
            print(args.out)
    return 0


def run_upscale_model(args: argparse.Namespace) -> int:
    from ..files.upscale_network import save_upscale_network
    from ..training.data.latents import load_shards
    from ..training.enlarging import make_enlarging_trainer, mixed
    from ..training.recipe import load_recipe
    from ..training.session import run_to_end

    recipe = load_recipe(args.recipe, args.set)
    trainer, perception = make_enlarging_trainer(recipe, load_shards(*args.latents))
    try:
        run_to_end(trainer, args.out, parts=lambda: perception.parts if perception else {})
    finally:
        if trainer.step and trainer.host.is_main_process:
            facts = {"license": recipe.card.license, "trained_on": recipe.card.trained_on}
            save_upscale_network(mixed(trainer.average, recipe), args.out, facts)
            print(args.out)
    return 0
