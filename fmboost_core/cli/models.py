"""The command `models`: the bundled models and upscale models, and the ways to name others."""

from __future__ import annotations

import argparse
from typing import Any

from ..errors import CheckpointError
from ..families import FAMILIES
from .arguments import DEFAULT_MODEL
from .console import one_line

_OTHERS = """
Other models, wherever NAME|FILE is asked for:
  path/to/model.safetensors                a model file of FMBoost, or one you trained
  hf://owner/repo/file.safetensors         from Hugging Face, kept in its cache
  path/to/folder or hf://owner/repo        as `fmboost export` prepares them
  path/to/last.ckpt                        a checkpoint of CompVis/fm-boosting (see `fmboost convert`)"""


def add_command(commands: Any) -> None:
    help = "list the models that come with FMBoost, and how to name others"
    parser = commands.add_parser("models", help=help, description=f"{help[0].upper()}{help[1:]}.")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from ..files.locate import MEAN_UPSCALE_MODEL, bundled_models, bundled_upscale_models

    names = bundled_models()
    print("Bundled models (for --model):" if names else "No models are bundled with this installation.")
    for name in names:
        _show(name)
    print(_OTHERS)
    if bundled_upscale_models():
        print("\nBundled upscale models (for --upscale-model, which takes files of others too):")
        for name in bundled_upscale_models():
            _show_upscale_model(name)
        print(f"  {MEAN_UPSCALE_MODEL}\n    the sharpened mean of what these make, for decoded latents of SD3")


def _show(name: str) -> None:
    from ..files.checkpoint import describe

    try:
        facts = describe(name)
    except CheckpointError as error:
        print(f"  {name}: unusable, {one_line(error)}")
        return
    spec = facts["specification"]
    print(f"  {name}{' (default)' if name == DEFAULT_MODEL else ''}")
    evaluations = f"{spec['nfe']} evaluation{'' if spec['nfe'] == 1 else 's'} by default"
    print(f"    {spec['scale']:g}x for {FAMILIES[spec['family']].title} latents, {evaluations}")
    print(f"    {facts['parameters'] / 1e6:.1f}M parameters, {facts['bytes'] / 1e6:.1f} MB")
    print(f"    license {spec['license']}; trained on {spec['trained_on']}")


def _show_upscale_model(name: str) -> None:
    from ..files.locate import IMAGE_UPSCALE_MODEL
    from ..files.upscale_model import find_upscale_model
    from ..files.upscale_network import describe_upscale_network

    try:
        facts = describe_upscale_network(find_upscale_model(name))
    except CheckpointError as error:
        print(f"  {name}: unusable, {one_line(error)}")
        return
    is_default = name == IMAGE_UPSCALE_MODEL
    print(f"  {name}{' (default)' if is_default else ''}")
    print(f"    {facts['factor']}x for {'images' if is_default else 'decoded latents'}, {facts['network']} network")
    print(f"    {facts['parameters'] / 1e6:.1f}M parameters, {facts['bytes'] / 1e6:.1f} MB")
    print(f"    license {facts['license'] or 'unknown'}")
