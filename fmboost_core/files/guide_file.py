"""Guide networks in files: alone, as a training with a fast guide starts from, or with the model they belong to."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch

from ..errors import CheckpointError, ConfigError, reason
from ..networks.config import GuideConfig
from ..networks.guide import GuideNetwork
from ..spec import built
from .checkpoint import METADATA_KEY as MODEL_KEY, empty_guide, load_model
from .locate import bundled_models, find_file, find_weights
from .weight_file import load_strictly, open_weights, save_weights

METADATA_KEY = "fmboost_guide"  # of the configuration in a file's metadata


def load_guide(path: str | Path) -> GuideNetwork:
    """A guide network on the CPU, in float32: of a file of its own, or of a model with fast guides, named or in a file.

    Raises `CheckpointError` that names the file and its fault.
    """
    if str(path) in bundled_models():
        path = find_weights(path)
    path = find_file(str(path))
    with open_weights(path) as file:
        if MODEL_KEY in file.metadata:
            guide = load_model(path).guide
            if guide is not None:
                return guide
        if METADATA_KEY not in file.metadata:
            raise CheckpointError(f"{path} is no guide network; `fmboost train-guide` makes one.")
        try:
            config: GuideConfig = built(GuideConfig, json.loads(file.metadata[METADATA_KEY]), "guide network")
        except (ConfigError, ValueError, RecursionError) as error:
            raise CheckpointError(
                f"{path} has a configuration that does not work ({reason(error)}); update FMBoost, or take another "
                "file."
            ) from error
        network = empty_guide(path, config, len(file.entries))
        load_strictly(path, network, file.entries)
    return network


def save_guide(network: GuideNetwork, path: Path) -> None:
    """Write a guide network in fp16, whole or not at all."""
    save_weights(path, network.state_dict(), {METADATA_KEY: json.dumps(asdict(network.config))}, torch.float16)
