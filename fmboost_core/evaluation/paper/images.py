"""The studies "pictures" and "trajectory": contact sheets of crops by NFE and by time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ...codecs.protocol import Codec
from ...imaging.compare import Panel, busiest_corner
from ...imaging.picture import Picture
from ...imaging.write import preview
from ...model import Model
from ...sampling.guide import pixel_upsample
from ...sampling.schedule import noise_augment, seeded_noise
from ..contact_sheet import contact_sheet
from ..methods import bicubic
from ..output import write_text
from ..photographs import EvaluationConfig, PreparedPhoto, decoded, prepare
from .networks import existing_network
from .sampler import Sampler
from .setup import AblationSetup

SHOWN, CROP = 4, 160  # photographs; pixels a side
NFES = (1, 2, 4, 10, 50)
TIMES = (0.0, 0.25, 0.5, 0.75, 1.0)


def images_by_nfe(setup: AblationSetup) -> None:
    """Write OUT/pictures.md: crops of CFM by NFE for several photographs, and of CFM, FM and DM for one."""
    models = {name: existing_network(name, setup.work) for name in ("cfm", "fm", "dm")}
    photos = _photos(setup)
    rows = [_row(models["cfm"], setup.codec, photo, "CFM" if i == 0 else "") for i, photo in enumerate(photos)]
    contact_sheet(setup.out / "pictures-nfe.jpg", rows)
    rows = [_row(model, setup.codec, photos[0], name.upper()) for name, model in models.items()]
    contact_sheet(setup.out / "pictures-objectives.jpg", rows)
    text = (
        "# pictures\n\nBy the number of function evaluations (NFE); crops where the photograph has most detail.\n\n"
        "CFM:\n\n![CFM by NFE](pictures-nfe.jpg)\n\nCFM, FM and DM:\n\n![objectives by NFE](pictures-objectives.jpg)\n"
    )
    write_text(setup.out / "pictures.md", text)


@torch.no_grad()
def trajectory(setup: AblationSetup) -> None:
    """Write OUT/trajectory.md: CFM's decoded states, and below each the end that its velocity points to."""
    model = existing_network("cfm", setup.work)
    rows: list[list[Panel]] = []
    for number, photo in enumerate(_photos(setup)):
        states, ends = _states_and_ends(model, setup.codec, photo)
        for name, latents in (("state", states), ("estimate", ends)):
            images = {f"{name}, t = {t:g}": decoded(setup.codec, z) for t, z in zip(TIMES, latents, strict=True)}
            rows.append(_panels(images, photo.reference, titled=number == 0))
    contact_sheet(setup.out / "trajectory.jpg", rows)
    text = (
        "# trajectory\n\nCFM in 20 Euler steps: the decoded state at each time, and below it the end that the "
        "velocity there points to, x_t + (1 - t) v.\n\n![states and estimates](trajectory.jpg)\n"
    )
    write_text(setup.out / "trajectory.md", text)


def _photos(setup: AblationSetup) -> list[PreparedPhoto]:
    """A few photographs at equal distances in the set."""
    paths: list[Path] = list(setup.photos.values())
    shown = paths[:: max(1, len(paths) // SHOWN)][:SHOWN]
    return [prepare(path, setup.codec, EvaluationConfig(2)) for path in shown]


def _row(model: Model, codec: Codec, photo: PreparedPhoto, name: str) -> list[Panel]:
    """Bicubic interpolation, the result at each NFE, and the reference."""
    images = {"bicubic": bicubic(photo)}
    for nfe in NFES:
        images[f"{name}, {nfe}"] = decoded(codec, Sampler(model, nfe)(photo, codec))
    return _panels({**images, "reference": photo.reference}, photo.reference, titled=bool(name))


def _panels(images: Mapping[str, Tensor], reference: Tensor, titled: bool) -> list[Panel]:
    size = (min(CROP, reference.shape[-1]), min(CROP, reference.shape[-2]))
    left, top = busiest_corner(preview(Picture(reference)), size)
    box = (left, top, left + size[0], top + size[1])
    return [Panel(preview(Picture(p)).crop(box), name if titled else "", "") for name, p in images.items()]


def _states_and_ends(
    model: Model, codec: Codec, photo: PreparedPhoto, steps: int = 20
) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """The states at `TIMES`, and the ends that the velocities there point to."""
    guide = pixel_upsample(photo.low, codec, photo.size)
    x = noise_augment(guide, model.spec.alpha_bar, seeded_noise(0, 1)(tuple(guide.shape)))
    states, ends = [], []
    for i in range(steps + 1):
        t = i / steps
        velocity = model.velocity(x, t, model.conditioning(guide))
        if t in TIMES:
            states.append(x)
            ends.append(x + (1 - t) * velocity)
        x = x + velocity / steps
    return states, ends
