"""Velocity networks by name: v(x, t, conditioning) over latents.

A new network is a module here, with a configuration class (see `NetworkConfig`) and an entry in `NETWORKS`. Model files
name their architecture. To load and to sample it nothing else is needed; starting a training from other weights
(training/start.py, widen.py) is the U-Net's alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from ..errors import ConfigError
from .config import PRESETS as PRESETS, GuideConfig as GuideConfig, UNetConfig as UNetConfig

if TYPE_CHECKING:
    from torch import nn


class NetworkConfig(Protocol):
    """What the rest of the project asks of a network's configuration, a frozen dataclass that JSON can hold."""

    architecture: ClassVar[str]

    @property
    def channels(self) -> int:
        """Latent channels C."""
        ...

    @property
    def classes(self) -> int:
        """How many guide kinds the network distinguishes: the first so many of `GUIDE_KINDS`, or 0."""
        ...

    @property
    def noise_level(self) -> bool:
        """Whether the network is conditioned on the start's noise level."""
        ...

    @property
    def stride(self) -> int:
        """Total downsampling, in latents: tiles start on multiples of it."""
        ...

    @property
    def receptive_radius(self) -> int:
        """The distance, in latents, over which an input affects an output. It is used where `is_exact_in_tiles`."""
        ...

    @property
    def is_exact_in_tiles(self) -> bool:
        """Whether tiles with an overlap of `receptive_radius` equal the whole."""
        ...

    @property
    def values_per_position(self) -> int:
        """About how many values an evaluation keeps per input position."""
        ...

    @property
    def fewest_tensors(self) -> int:
        """A bound from below on the tensors of the state dict."""
        ...


@dataclass(frozen=True)
class Architecture:
    """A kind of network. config: its configuration's class. build: (configuration, ops) -> a new network.

    The network is called as network(x, t, conditioning). ops is the namespace of its layers, with torch.nn's classes.
    """

    config: type[Any]
    build: Callable[[Any, Any], nn.Module]


def _unet(config: UNetConfig, ops: Any) -> nn.Module:
    from .unet import LatentUNet  # here, so that reading a configuration does not wait for PyTorch

    return LatentUNet(config, ops)


NETWORKS = {UNetConfig.architecture: Architecture(UNetConfig, _unet)}


def build_network(config: NetworkConfig, ops: Any = None) -> nn.Module:
    """A new network of this configuration. ops: where its layers come from; None: torch.nn."""
    from torch import nn

    return NETWORKS[config.architecture].build(config, nn if ops is None else ops)


def config_class(fields: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The configuration class that a stored table of fields names, and its own fields.

    A table without an architecture is a U-Net's, as in the first files. Raises `ConfigError` for an unknown one.
    """
    own = dict(fields)
    name = own.pop("architecture", UNetConfig.architecture)
    if name not in NETWORKS:
        raise ConfigError(f"The architecture {name!r} is not known; this version has {', '.join(NETWORKS)}.")
    return NETWORKS[name].config, own
