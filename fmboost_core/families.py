"""Latent families: the latent spaces that diffusion models share, and the check that parts share one.

A family is one entry of `FAMILIES`. Options, messages and the hosts' lists derive from it.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from .errors import ConfigError, FMBoostWarning, LatentError, is_count, require
from .foreign import IMAGES, foreign_titles

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

IMAGE_FAMILY = "flux1"  # for finished images, by its built-in codec: it keeps most of them (docs/models.md)


def titles(families: Iterable[str], between: str = "and") -> str:
    """The families' names for people as a list: "SD1.5 and SDXL"; "no known family" for none."""
    return listed([FAMILIES[name].title for name in families] or ["no known family"], between)


def listed(words: Sequence[str], between: str = "and") -> str:
    """At least one word or phrase as a list: "a, b and c"."""
    *others, last = words
    return f"{', '.join(others)} {between} {last}" if others else last


def families_with(channels: int, kind: str = IMAGES) -> str:
    """The families, and the foreign spaces, whose latents have this many channels, for messages: "SD1.5 or SDXL".

    kind: of the foreign spaces; the families' latents are of images. Where nothing is of images, any other kind.
    """
    names = foreign_titles(channels, kind)
    if kind == IMAGES:
        known = [family.title for family in FAMILIES.values() if family.channels == channels]
        names = [*known, *names] or foreign_titles(channels)
    return listed(names or ["no known family"], "or")


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
    foreign: the name of its latent space, where that is known and none of a family; "" otherwise.
    instead: what to do where it is the wrong one, such as "give another with --codec".
    seems: the family that its statistics tell, where the family itself is not known; None where they tell none.
    is_latent: whether it is a latent itself, and no part that takes latents.
    """

    what: str
    family: str | None = None
    channels: int | None = None
    instead: str = ""
    seems: str | None = None
    is_latent: bool = False
    foreign: str = ""

    def __str__(self) -> str:
        if self.space is not None:
            kind = f"one of {self.title}" if self.is_latent else f"for {self.title} latents"
            return f"{self.what} is {kind} ({self.known_channels} channels)"
        if self.seems is not None and FAMILIES[self.seems].channels == self.channels:
            return f"{self.what} looks like one of {FAMILIES[self.seems].title}"
        return f"{self.what} has {self.channels} channels ({families_with(self.channels or 0)})"

    @property
    def space(self) -> str | None:
        """The latent space: the family, or the foreign space's name; None where neither is known."""
        return self.family or self.foreign or None

    @property
    def title(self) -> str:
        """The latent space's name for people; "" where it is not known."""
        return FAMILIES[self.family].title if self.family is not None else self.foreign

    @property
    def known_channels(self) -> int | None:
        """The channels, given or those of the family; None where neither is known."""
        if self.channels is None and self.family is not None:
            return FAMILIES[self.family].channels
        return self.channels

    @property
    def likely(self) -> str | None:
        """The latent space, or the family that it seems to be of."""
        return self.space or self.seems

    def agrees(self, other: Party) -> bool:
        """Whether both can share a latent space, as far as is known."""
        spaces, channels = {self.space, other.space}, {self.known_channels, other.known_channels}
        return len(spaces - {None}) < 2 and len(channels - {None}) < 2


def require_same_family(*parties: Party) -> None:
    """Refuse parts of different latent families, and warn of one that only seems to be of another.

    The sentence names the odd one where the others outvote it, and what to do. Raises `LatentError`.
    """
    ordered = _odd_last(parties)
    for one, other in combinations(ordered, 2):
        if not one.agrees(other):
            advice = other.instead or one.instead or "use one latent family for both"
            raise LatentError(_dispute(ordered, one, other, advice))
    for one, other in combinations(ordered, 2):
        if one.likely and other.likely and one.likely != other.likely:
            advice = "expect wrong colours or patterns" + (f", or {other.instead}" if other.instead else "")
            warnings.warn(_dispute(ordered, one, other, advice), FMBoostWarning, stacklevel=2)
            return


def _odd_last(parties: Sequence[Party]) -> list[Party]:
    """The parties in their order, but the one last that two others or more outvote. What is known has more weight."""
    votes = Counter(party.likely for party in parties if party.likely)
    if len(votes) < 2 or len(parties) < 3:
        return list(parties)
    (most, count), *others = votes.most_common()
    if count < 2 or others[0][1] == count:
        return list(parties)
    return sorted(parties, key=lambda party: (party.likely not in (most, None), party.space is None))


def _dispute(parties: Sequence[Party], one: Party, other: Party, advice: str) -> str:
    """ "One is for SD1.5 latents, as the latent seems to be, but another is for SDXL latents; do this." """
    same = [p.what for p in parties if p is not one and one.space and p.space == one.space]
    alike = [p.what for p in parties if p not in (one, other) and not p.space and p.seems and p.seems == one.likely]
    first = str(one)
    if same:
        first = f"{listed([one.what, *same])} are for {one.title} latents ({one.known_channels} channels)"
    if alike:
        first += f", as {listed(alike)} seem{'' if len(alike) > 1 else 's'} to be,"
    sentence = f"{first}{'' if alike else ','} but {other}; {advice}."
    return sentence[0].upper() + sentence[1:]
