"""The command `info`: what a model file holds."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any


def add_command(commands: Any) -> None:
    help = "show what a model file holds"
    parser = commands.add_parser("info", help=help, description="Load a model and show what its file holds.")
    parser.add_argument("model", metavar="NAME|FILE", help="the name of a bundled model, or a file")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from ..files.checkpoint import describe

    facts = describe(args.model)
    for name, value in _rows(facts):
        print(f"{name:<26}{value}")
    if facts["assumed"]:
        print(f"\nThe shapes prove {', '.join(facts['derived'])}. {', '.join(facts['assumed'])} are assumed.")
        print("If an assumption is wrong, correct it with the options of `fmboost convert`.")


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
