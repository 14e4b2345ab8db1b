"""Latent families: the latent spaces that diffusion models share, and the check that parts share one.

A family is one entry of `FAMILIES`. Options, messages and the hosts' lists derive from it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from .errors import ConfigError, LatentError, is_count, require

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class LatentFamily:
    """A latent space. A scaled latent is `(raw - shift) * scaling_factor` and has about unit variance.

    name: the key in `FAMILIES`, in files and in options. title: the name for people.
    channels: latent channels. downscale_factor: pixels per latent along each side.
    scaling_factor, shift: from the VAE's raw latents to those the diffusion model sees.
    tiny_vae: common beginning of the names of its public tiny VAE's files; "" without one.
    comfyui: name of the class in ComfyUI's `comfy.latent_formats`; "" where the host has none.
    webui: attributes of a checkpoint in AUTOMATIC1111 and Forge, any of which is true for this family.
    """

    name: str
    title: str
    channels: int
    scaling_factor: float
    shift: float = 0.0
    downscale_factor: int = 8
    tiny_vae: str = ""
    comfyui: str = ""
    webui: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require(self.name.isidentifier(), "name", self.name, "a word of letters, digits and underscores")
        for field in ("channels", "downscale_factor"):
            require(is_count(getattr(self, field)), field, getattr(self, field), "a whole number above 0")
        require(self.scaling_factor > 0, "scaling_factor", self.scaling_factor, "above 0")

    def to_scaled(self, raw: Tensor) -> Tensor:
        """The diffusion model's latents from the VAE's."""
        return (raw - self.shift) * self.scaling_factor

    def to_raw(self, scaled: Tensor) -> Tensor:
        """The VAE's latents from the diffusion model's."""
        return scaled / self.scaling_factor + self.shift


FAMILIES: dict[str, LatentFamily] = {}


def register_family(family: LatentFamily) -> None:
    """Make a family known. Raises `ConfigError` where another one has its name."""
    if FAMILIES.setdefault(family.name, family) != family:
        raise ConfigError(f"There is another latent family named {family.name!r} already; choose another name.")


register_family(LatentFamily("sd15", "SD1.5", 4, 0.18215, tiny_vae="taesd", comfyui="SD15", webui=("is_sd1", "is_sd2")))
register_family(LatentFamily("sdxl", "SDXL", 4, 0.13025, tiny_vae="taesdxl", comfyui="SDXL", webui=("is_sdxl",)))
register_family(LatentFamily("sd3", "SD3", 16, 1.5305, 0.0609, tiny_vae="taesd3", comfyui="SD3", webui=("is_sd3",)))
register_family(LatentFamily("flux1", "FLUX.1", 16, 0.3611, 0.1159, tiny_vae="taef1", comfyui="Flux"))


def titles(families: Iterable[str], between: str = "and") -> str:
    """The families' names for people as a list: "SD1.5 and SDXL"; "no known family" for none."""
    *others, last = [FAMILIES[name].title for name in families] or ["no known family"]
    return f"{', '.join(others)} {between} {last}" if others else last


def families_with(channels: int) -> str:
    """The families whose latents have this many channels, for messages: "SD1.5 or SDXL"."""
    return titles((name for name, family in FAMILIES.items() if family.channels == channels), "or")


def family_of_tiny_vae(name: str) -> str | None:
    """The family of a public tiny VAE by the common beginning of its files' names; None for another name."""
    return next((f.name for f in FAMILIES.values() if f.tiny_vae and f.tiny_vae == name.lower()), None)


def family_of_space(channels: int, scaling_factor: float, shift: float) -> str | None:
    """The family with these numbers, to four digits; None where no family has them."""
    found = (channels, round(scaling_factor, 4), round(shift, 4))
    spaces = {(f.channels, round(f.scaling_factor, 4), round(f.shift, 4)): f.name for f in FAMILIES.values()}
    return spaces.get(found)


@dataclass(frozen=True)
class Party:
    """One of the parts that must share a latent space.

    what: its name in a sentence, such as "the model sd15-x2". family, channels: None where they are not known.
    instead: what to do where it is the wrong one, such as "give another with --codec".
    """

    what: str
    family: str | None = None
    channels: int | None = None
    instead: str = ""

    def __str__(self) -> str:
        if self.family is not None:
            return f"{self.what} is for {FAMILIES[self.family].title} latents ({self.known_channels} channels)"
        return f"{self.what} has {self.channels} channels ({families_with(self.channels or 0)})"

    @property
    def known_channels(self) -> int | None:
        """The channels, given or those of the family; None where neither is known."""
        if self.channels is None and self.family is not None:
            return FAMILIES[self.family].channels
        return self.channels

    def agrees(self, other: Party) -> bool:
        """Whether both can share a latent space, as far as is known."""
        families, channels = {self.family, other.family}, {self.known_channels, other.known_channels}
        return len(families - {None}) < 2 and len(channels - {None}) < 2


def require_same_family(*parties: Party) -> None:
    """Refuse parts of different latent families: a `LatentError` names the first two, and what to do."""
    for one, other in combinations(parties, 2):
        if not one.agrees(other):
            advice = other.instead or one.instead or "use one latent family for both"
            sentence = f"{one}, but {other}; {advice}."
            raise LatentError(sentence[0].upper() + sentence[1:])
