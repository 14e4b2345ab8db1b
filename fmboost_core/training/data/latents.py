"""Sets of latents, read from folders of shards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...errors import ConfigError
from .shards import Sample, read_shard


@dataclass(frozen=True)
class LatentSet:
    """All samples of some folders of shards, and the upscale factor that they share."""

    samples: list[Sample]
    scale: int

    @property
    def channels(self) -> int:
        return _channels(self.samples[0])


def load_shards(*folders: Path) -> LatentSet:
    """Map every shard of the folders into memory.

    Raises `ConfigError` for no shards, a damaged one, or more than one scale or number of channels.
    """
    samples = [s for folder in folders for path in sorted(folder.glob("*.tar")) for s in read_shard(path)]
    places = ", ".join(map(str, folders))
    if not samples:
        raise ConfigError(f"There are no latents in {places}; make some with the command encode.")
    try:
        kinds = {(int(s.facts["scale"]), _channels(s)) for s in samples}
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise ConfigError(
            f"{places} holds shards that the command encode did not make ({error!r}); encode them again."
        ) from None
    if len(kinds) > 1:
        raise ConfigError(f"{places} must hold latents of one scale and codec, but (scale, channels) are {kinds}.")
    return LatentSet(samples, kinds.pop()[0])


def require_latents(data: LatentSet) -> None:
    """Refuse shards of images, which are for an upscale model."""
    if not data.channels:
        raise ConfigError("These shards hold images, for train-upscale-model; encode latents, without --images.")


def _channels(sample: Sample) -> int:
    """The latents' channels; 0 for images in the place of latents."""
    return 0 if {"picture", "reduced"} <= set(sample.arrays) else int(sample.arrays["high"].shape[0])
