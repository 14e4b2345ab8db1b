"""The command `export`: a model's folder for a hub."""

from __future__ import annotations

import argparse
import re
from typing import Any


def add_command(commands: Any) -> None:
    parser = commands.add_parser("export", help="prepare the folder of a model for a hub; nothing is uploaded")
    parser.description = (
        "Write a model's weights, its config.json and its card README.md into a new folder, as hubs expect them. "
        "Nothing is uploaded; `hf upload OWNER/REPO FOLDER` does that."
    )
    parser.add_argument("model", metavar="NAME|FILE", help="the name of a bundled model, or a file")
    parser.add_argument("folder", metavar="FOLDER", help="a new or empty folder")
    parser.add_argument(
        "--repo", type=_repo, metavar="OWNER/REPO", help="where it will be, for the card (default your-name/MODEL)"
    )
    parser.set_defaults(run=run)


def _repo(text: str) -> str:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", text):
        raise argparse.ArgumentTypeError(f"must be OWNER/REPO, not {text!r}")
    return text


def run(args: argparse.Namespace) -> None:
    from ..files.folder import export

    for path in export(args.model, args.folder, args.repo):
        print(f"{path}  {path.stat().st_size / 1e6:.1f} MB" if path.suffix == ".safetensors" else path)
    print(f"Look at the card, then upload: hf upload {args.repo or 'OWNER/REPO'} {args.folder}")
