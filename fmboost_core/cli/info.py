"""The command `info`: what a model file holds."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def add_command(commands: Any) -> None:
    help = "show what a model file holds"
    description = "Load a model or an upscale model and show what its file holds."
    parser = commands.add_parser("info", help=help, description=description)
    parser.add_argument("model", metavar="NAME|FILE", help="the name of a bundled model or upscale model, or a file")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from ..files.checkpoint import describe
    from ..files.locate import MEAN_UPSCALE_MODEL, bundled_upscale_models
    from ..files.upscale_network import describe_upscale_network

    if args.model == MEAN_UPSCALE_MODEL:
        print(f"{'kind':<26}the sharpened mean of what {' and '.join(bundled_upscale_models())} make")
        return
    upscale_model = _upscale_model(args.model)
    if upscale_model is not None:
        for name, value in _upscale_rows(describe_upscale_network(upscale_model)):
            print(f"{name:<26}{value}")
        return
    facts = describe(args.model)
    for name, value in _rows(facts):
        print(f"{name:<26}{value}")
    if facts["assumed"]:
        print(f"\nThe shapes prove {', '.join(facts['derived'])}. {', '.join(facts['assumed'])} are assumed.")
        print("If an assumption is wrong, correct it with the options of `fmboost convert`.")


def _upscale_model(name: str) -> Path | None:
    """The file of a bundled upscale model, or the path of a file with a network of this kind; None for all others."""
    from ..files.locate import bundled_upscale_models
    from ..files.upscale_model import BUILTIN, find_upscale_model
    from ..files.upscale_network import is_known

    if name in (BUILTIN, *bundled_upscale_models()):
        return find_upscale_model(name)
    path = Path(name)
    return path if path.is_file() and is_known(path) else None


def _upscale_rows(facts: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The facts about an upscale model as (name, value)."""
    yield "file", facts["path"]
    yield "kind", f"upscale model of Real-ESRGAN's {facts['network']} kind"
    yield "size", f"{facts['bytes'] / 1e6:.1f} MB, {facts['parameters']:,} parameters, {facts['dtype']}"
    yield "sha256", facts["sha256"]
    yield "scale", facts["factor"]
    yield "license", facts["license"] or "unknown"


def _rows(facts: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The facts as (name, value), a specification's fields one by one."""
    spec = dict(facts["specification"])
    network = spec.pop("network")
    yield "file", facts["path"]
    yield "kind", {"fmboost": "FMBoost model", "reference": "CompVis/fm-boosting checkpoint"}[facts["kind"]]
    yield "size", f"{facts['bytes'] / 1e6:.1f} MB, {facts['parameters']:,} parameters, {facts['dtype']}"
    yield "sha256", facts["sha256"]
    for name, value in (*spec.items(), *((f"network.{k}", v) for k, v in network.items())):
        yield name, ", ".join(map(str, value)) or "none" if isinstance(value, (list, tuple)) else value
