"""Codecs from files, and back."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import torch

from ..errors import CheckpointError
from ..files.locate import BUNDLED_CODECS
from ..files.weight_file import load_strictly, open_weights, save_weights
from .tiny import TinyVAE, taesd, tiny_codec

METADATA_KEY = "fmboost_codec"


def save_codec(codec: TinyVAE, path: Path, *, license: str, trained_on: str) -> None:
    """Write one of our own codecs (`tiny_codec`) in fp16, whole or not at all."""
    metadata = {METADATA_KEY: json.dumps({"license": license, "trained_on": trained_on})}
    save_weights(path, codec, metadata, torch.float16)


def load_codec(name: str | Path) -> TinyVAE:
    """A codec on the CPU, in float32: "builtin" (ours, SD1.5's space), a file of ours, or a TAESD pair.

    The pair is `NAME_encoder.safetensors` and `NAME_decoder.safetensors`. Raises `CheckpointError` that names the
    file and what is wrong with it.
    """
    path = BUNDLED_CODECS / "sd15.safetensors" if str(name) == "builtin" else Path(name)
    codec = _load_pair(path) if path.suffix != ".safetensors" else _load_own(path)
    return codec.eval().requires_grad_(False)


def _load_own(path: Path) -> TinyVAE:
    with open_weights(path) as file:
        if METADATA_KEY not in file.metadata:
            raise CheckpointError(f"{path} is no codec of FMBoost; of a TAESD pair, give what both names begin with.")
        first, last = "encoder.1.weight", f"encoder.{len(_own_body(file.entries)) + 8}.weight"
        missing = [key for key in (first, last) if key not in file.entries or len(file.entries[key].shape) != 4]
        if missing:
            raise CheckpointError(f"{path} is no whole codec: {', '.join(missing)} missing or misshapen.")
        stem, (channels, width) = file.entries[first].shape[0], file.entries[last].shape[:2]
        with torch.device("meta"):
            codec = tiny_codec(channels, width, len(_own_body(file.entries)), stem)
        load_strictly(path, codec, file.entries)
    return codec


def _own_body(names: Iterable[str]) -> set[str]:
    """The encoder's residual blocks among the names of one of our codecs."""
    return {name.split(".")[1] for name in names if name.startswith("encoder.") and ".conv." in name}


def _load_pair(prefix: Path) -> TinyVAE:
    """The channels are those of the decoder's first convolution."""
    paths = {part: prefix.with_name(f"{prefix.name}_{part}.safetensors") for part in ("encoder", "decoder")}
    with open_weights(paths["encoder"]) as encoder, open_weights(paths["decoder"]) as decoder:
        first = decoder.entries.get("1.weight")
        if first is None or len(first.shape) != 4:
            raise CheckpointError(f"{decoder.path} is no decoder of a tiny VAE: 1.weight is missing.")
        with torch.device("meta"):
            codec = taesd(channels=first.shape[1], width=first.shape[0])
        load_strictly(encoder.path, codec.encoder, encoder.entries)
        load_strictly(decoder.path, codec.decoder, decoder.entries)
    return codec
