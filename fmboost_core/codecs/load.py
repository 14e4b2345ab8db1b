"""Codecs in files: the built-in ones, files of ours, and pairs of a public tiny VAE."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch

from ..errors import CheckpointError, ConfigError
from ..families import FAMILIES, Party, family_of_tiny_vae, require_same_family
from ..files.locate import BUNDLED_CODECS, find_file, is_address, split_revision
from ..files.weight_file import load_strictly, open_weights, save_weights
from .protocol import codec_party
from .tiny import TinyVAE, taesd, tiny_codec

METADATA_KEY = "fmboost_codec"
BUILTIN = "builtin"
PARTS = ("encoder", "decoder")  # of a public tiny VAE, a file each
_FIRST_FAMILY = "sd15"  # of files that do not name theirs


def save_codec(codec: TinyVAE, path: Path, *, license: str, trained_on: str) -> None:
    """Write one of our own codecs (`tiny_codec`) in fp16, whole or not at all."""
    facts = {"license": license, "trained_on": trained_on, "family": codec.family or _FIRST_FAMILY}
    save_weights(path, codec.state_dict(), {METADATA_KEY: json.dumps(facts)}, torch.float16)


def load_codec(name: str | Path, family: str | None = None) -> TinyVAE:
    """A codec on the CPU, in float32.

    name: "builtin", which is the family's (SD1.5's without one); a file of ours; or the common beginning of a public
    tiny VAE's two files, NAME_encoder.safetensors and NAME_decoder.safetensors. Both may be on the Hugging Face hub,
    as hf://owner/repo/path/NAME@revision; only then the network is used.
    family: a key of `FAMILIES`, for files that do not tell theirs. Public pairs tell it by their names.
    Raises `CheckpointError` that names the file and what is wrong with it, `LatentError` for a file of another family.
    """
    if family is not None and family not in FAMILIES:
        raise ConfigError(f"family must be one of {', '.join(FAMILIES)}, but it is {family!r}.")
    text = str(name)
    location, revision = split_revision(text) if is_address(text) else (text, "")
    if text == BUILTIN:
        codec = _load_own(_builtin(family or _FIRST_FAMILY))
    elif location.endswith(".safetensors"):
        codec = _load_own(find_file(text))
    else:
        codec = _load_pair(location, revision)
    codec.name = text if text == BUILTIN else Path(location).stem
    if family is not None:
        asked = Party("the family asked for", family)
        require_same_family(replace(codec_party(codec), what=f"the codec {name}"), asked)
        codec.family = family
    return codec.eval().requires_grad_(False)


def is_pair(name: str) -> bool:
    """Whether this is the common beginning of the names of a public tiny VAE's two files, of which one is there."""
    return any(Path(f"{name}_{part}.safetensors").exists() for part in PARTS)


def has_builtin_codec(family: str) -> bool:
    """Whether a codec for this family comes with the package."""
    return (BUNDLED_CODECS / f"{family}.safetensors").exists()


def _builtin(family: str) -> Path:
    if not has_builtin_codec(family):
        known, other = FAMILIES[family].title, FAMILIES[family].tiny_vae
        example = f", such as the public tiny VAE {other} (github.com/madebyollin/taesd)" if other else ""
        raise CheckpointError(f"There is no built-in codec for {known} latents; give a codec for {known}{example}.")
    return BUNDLED_CODECS / f"{family}.safetensors"


def _load_own(path: Path) -> TinyVAE:
    with open_weights(path) as file:
        if METADATA_KEY not in file.metadata:
            raise CheckpointError(f"{path} is no codec of FMBoost; of a tiny VAE, give what both names begin with.")
        first, last = "encoder.1.weight", f"encoder.{len(_own_body(file.entries)) + 8}.weight"
        missing = [key for key in (first, last) if key not in file.entries or len(file.entries[key].shape) != 4]
        if missing:
            raise CheckpointError(
                f"{path} is no whole codec: {', '.join(missing)} missing or misshapen; copy or download it again."
            )
        stem, (channels, width) = file.entries[first].shape[0], file.entries[last].shape[:2]
        with torch.device("meta"):
            codec = tiny_codec(channels, width, len(_own_body(file.entries)), stem)
        load_strictly(path, codec, file.entries)
        codec.family = _stored_family(path, file.metadata[METADATA_KEY])
    return codec


def _stored_family(path: Path, facts: str) -> str:
    try:
        family = json.loads(facts).get("family", _FIRST_FAMILY)
    except (ValueError, AttributeError):
        raise CheckpointError(f"{path} has metadata that cannot be read; write the codec again.") from None
    if family not in FAMILIES:
        raise CheckpointError(
            f"{path} is for the latent family {family!r}, which this version does not know; update FMBoost, or take "
            "another codec."
        )
    return str(family)


def _own_body(names: Iterable[str]) -> set[str]:
    """The encoder's residual blocks among the names of one of our codecs."""
    return {name.split(".")[1] for name in names if name.startswith("encoder.") and ".conv." in name}


def _load_pair(prefix: str, revision: str) -> TinyVAE:
    """The decoder's first convolution tells the channels, the files' names the family."""
    paths = {part: find_file(f"{prefix}_{part}.safetensors{revision}") for part in PARTS}
    with open_weights(paths["encoder"]) as encoder, open_weights(paths["decoder"]) as decoder:
        first = decoder.entries.get("1.weight")
        if first is None or len(first.shape) != 4:
            raise CheckpointError(
                f"{decoder.path} is no decoder of a tiny VAE: 1.weight is missing; take the files of a TAESD."
            )
        with torch.device("meta"):
            codec = taesd(channels=first.shape[1], width=first.shape[0])
        load_strictly(encoder.path, codec.encoder, encoder.entries)
        load_strictly(decoder.path, codec.decoder, decoder.entries)
    family = family_of_tiny_vae(Path(prefix).name)
    codec.family = family if family and FAMILIES[family].channels == codec.channels else None
    return codec
