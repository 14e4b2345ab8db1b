"""What the commands take that look closely at one model: the model, a codec and photographs."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from ..codecs.kl import open_codec
from ..codecs.protocol import Codec
from ..errors import ConfigError, require
from ..files.checkpoint import load_model
from ..model import Model
from ..training.data.photos import find_photos
from .results import photo_names


def add_inputs(parser: argparse.ArgumentParser) -> None:
    """Add their arguments."""
    parser.add_argument("model", metavar="MODEL", help="bundled name, file or hf:// address")
    parser.add_argument("--photos", nargs="+", type=Path, required=True, metavar="PLACE")
    parser.add_argument("--codec", default="builtin", help="as for the command run")
    parser.add_argument("--bf16", action="store_true", help="the codec in bf16")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N photographs")


def opened(args: argparse.Namespace) -> tuple[Model, Codec, dict[str, Path]]:
    """The model, the codec, and the photographs by name. Raises `ConfigError` and what loading does."""
    require(args.limit is None or args.limit > 0, "limit", args.limit, "a whole number above 0")
    photos = photo_names({path: place for place in args.photos for path in find_photos([place])})
    photos = dict(list(photos.items())[: args.limit])
    if not photos:
        raise ConfigError("There are no photographs in the places named.")
    codec = open_codec(args.codec).to(torch.bfloat16 if args.bf16 else torch.float32)
    return load_model(args.model), codec, photos
