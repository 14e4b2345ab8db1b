"""Stability of a flow over several stages: colour drift, patterns that grow, NaN.

A small error of one stage adds up over three.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..codecs.protocol import Codec
from ..errors import LatentError, NonFiniteError, require
from ..metrics.meanings import Meaning
from ..metrics.texture import colour, ring_power
from ..model import Model
from ..sampling.guide import pixel_upsample
from ..sampling.schedule import seeded_noise
from ..sampling.target import Target
from ..sampling.upscale_model import UpscaleModel
from ..sampling.upscaler import Upscaler, boost
from ..training.data.encode import disturbed
from .markdown import markdown
from .output import make_folder, write_text
from .photographs import centre_square, decoded, load_photo
from .plots import curve
from .statistics import Interval, bootstrap
from .summary import summarise

TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
BINS = 48  # of a spectrum, from 0 to half a cycle a pixel
SMALLEST = 64  # pixels
NEIGHBOURS = 4  # bins on each side that a peak is compared with
PSU_ALONE = "PSU alone"

MEANINGS = {
    "colour": Meaning("lower", "1/255", "distance of the worst channel's mean from the small image's"),
    "fine": Meaning(
        "zero",
        "dB",
        "power above a quarter of a cycle a pixel, over the small image's, which looks alike at any scale",
    ),
    "peak": Meaning("lower", "dB", "how far the spectrum's sharpest ring stands above its neighbours"),
    "broken": Meaning("lower", "", "share of the latents that came to NaN or infinity; those have no other figures"),
}


@dataclass(frozen=True)
class CascadeTest:
    """Several stages in a row from small photographs.

    stages: their number; size: side of the small images in pixels; disturb: add errors to the first latents, as a
    generator's have.
    """

    stages: int = 3
    size: int = 128
    disturb: bool = False

    def __post_init__(self) -> None:
        require(self.size >= SMALLEST, "size", self.size, f"at least {SMALLEST}, or the spectrum has too few rings")
        require(self.stages > 0, "stages", self.stages, "above 0")

    def first_latent(self, path: Path, number: int, codec: Codec) -> Tensor:
        """The small latent of a photograph; number: seeds its disturbance."""
        low = codec.encode(centre_square(load_photo(path, 10**6, 1), self.size))
        return disturbed(low, number) if self.disturb else low


@dataclass
class CascadeFigures:
    """Figures by method ("fp32, 4x") and photograph, and the spectra of each method's images."""

    figures: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    spectra: dict[str, list[Tensor]] = field(default_factory=dict)

    def add(self, method: str, photo: str, figures: dict[str, float], spectrum: Tensor | None) -> None:
        self.figures.setdefault(method, {})[photo] = figures
        if spectrum is not None:
            self.spectra.setdefault(method, []).append(spectrum)


@torch.no_grad()
def run_cascades(
    models: Mapping[str, Model],
    codec: Codec,
    photos: Mapping[str, Path],
    test: CascadeTest,
    progress: Callable[[int, int], None],
    upscale_model: UpscaleModel | None = None,
) -> CascadeFigures:
    """Measure every stage of one model in several number types (type -> model), and of PSU alone.

    progress(done, total) counts photographs. upscale_model: enlarges the images of the model's guides, as in hosts;
    what is measured then is the image that they show.
    """
    scale, found = next(iter(models.values())).spec.scale, CascadeFigures()
    for number, (name, path) in enumerate(photos.items()):
        low = test.first_latent(path, number, codec)
        cascades = {
            kind: _boosted(low, model, codec, test.stages, number, upscale_model) for kind, model in models.items()
        }
        cascades[PSU_ALONE] = _psu_alone(low, scale, codec, test.stages)
        first = decoded(codec, low).float()
        for kind, images in cascades.items():
            for stage, (figures, spectrum) in enumerate(_measured(first, images, test.stages), start=1):
                found.add(f"{kind}, {round(scale**stage)}x", name, figures, spectrum)
        progress(number + 1, len(photos))
    return found


def write_stability(
    found: CascadeFigures, model: Model, test: CascadeTest, shown: str, out: Path, upscale_model: str = ""
) -> str:
    """Write OUT/stability.md and spectrum.png, which shows the type `shown`; returns the text.

    upscale_model: the name of the one behind which the model stood; "": none.
    """
    make_folder(out)
    inputs = "disturbed encodings" if test.disturb else "encodings"
    count, behind = len(next(iter(found.figures.values()))), f" behind {upscale_model}" if upscale_model else ""
    many = f"{test.stages} scales" if upscale_model else f"{test.stages} stages"
    text = (
        f"# {model.spec.name}{behind}, {many}\n\nFrom {inputs} of {count} photographs of {test.size} px, "
        f"NFE {model.spec.nfe} a stage.\n\n{markdown(summarise(found.figures), MEANINGS)}\n![spectrum](spectrum.png)\n"
    )
    write_text(out / "stability.md", text)
    series = {
        method: [_interval([float(spectrum[i]) for spectrum in spectra]) for i in range(BINS)]
        for method, spectra in found.spectra.items()
        if method.startswith(f"{shown},")
    }
    curve(
        out / "spectrum.png", [(i + 0.5) / (2 * BINS) for i in range(BINS)], series,
        x_label="cycles a pixel", y_label="power, dB", ticks=(0, 1 / 8, 1 / 4, 3 / 8, 1 / 2),
    )  # fmt: skip
    return text


def choose_types(names: list[str] | None) -> dict[str, torch.dtype]:
    """The number types by name (None: all that this torch computes in). Raises `ConfigError` for others."""
    if names is None:
        return {name: dtype for name, dtype in TYPES.items() if computes(dtype)}
    for name in names:
        require(name in TYPES, "types", name, f"{', '.join(TYPES)}")
        require(computes(TYPES[name]), "types", name, f"those that torch {torch.__version__} computes in on a CPU")
    return {name: TYPES[name] for name in names}


def computes(dtype: torch.dtype) -> bool:
    """Whether this torch computes in a type on a CPU; torch 2.1 lacks half precision there."""
    one = torch.ones(1, 1, dtype=dtype)
    try:
        return bool((one @ one).isfinite())
    except RuntimeError:
        return False


def spectrum_of(image: Tensor) -> Tensor:
    """The luma's power in dB, by frequency in `BINS` equal bins up to half a cycle a pixel."""
    power = ring_power(image)
    bins = (torch.arange(len(power)) * BINS / len(power)).long()
    return torch.stack([10 * power[bins == i].mean().log10() for i in range(BINS)])


def peak(spectrum: Tensor) -> float:
    """How far the sharpest bin stands above the mean of its neighbours on both sides, in dB; a grid is a peak."""
    inside = range(NEIGHBOURS, BINS - NEIGHBOURS)
    around = [torch.cat([spectrum[i - NEIGHBOURS : i], spectrum[i + 1 : i + 1 + NEIGHBOURS]]).mean() for i in inside]
    return float(max(spectrum[i] - mean for i, mean in zip(inside, around, strict=True)))


def fine_power(image: Tensor) -> float:
    """The luma's power above a quarter of a cycle a pixel, in dB."""
    power = ring_power(image)
    return float(10 * power[len(power) // 2 :].mean().log10())


def _measured(first: Tensor, images: list[Tensor], count: int) -> list[tuple[dict[str, float], Tensor | None]]:
    """The figures and the spectrum after each of count stages; only "broken" where the cascade has no result.

    first: the small image (1,3,h,w). images: those after the stages that have one.
    """
    mean, fine = first.mean((2, 3), keepdim=True), fine_power(first)
    found: list[tuple[dict[str, float], Tensor | None]] = []
    for image in images:
        spectrum = spectrum_of(image)
        shift = colour(image.mean((2, 3), keepdim=True), mean)
        figures = {"colour": shift, "fine": fine_power(image) - fine, "peak": peak(spectrum), "broken": 0.0}
        found.append((figures, spectrum))
    return found + [({"broken": 1.0}, None)] * (count - len(found))


def _boosted(
    low: Tensor, model: Model, codec: Codec, count: int, seed: int, upscale_model: UpscaleModel | None
) -> list[Tensor]:
    """The images after one stage, after two, and so on, up to the stage that breaks."""
    images: list[Tensor] = []
    with suppress(NonFiniteError, LatentError):
        while len(images) < count:
            scale = model.spec.scale ** (len(images) + 1)
            if upscale_model is None:
                image = decoded(codec, boost(low, model, codec, scale=scale, seed=seed))
            else:
                upscaler = Upscaler(model, codec, upscale_model=upscale_model)
                image = upscaler.image_of_latent(low, Target(scale=scale), seeded_noise(seed, 1))
            images.append(image.float())
    return images


def _psu_alone(low: Tensor, scale: float, codec: Codec, count: int) -> list[Tensor]:
    """The same without the flow: the codec's own effect in as many round trips."""
    images = []
    for _ in range(count):
        height, width = (round(scale * side) * codec.downscale_factor for side in low.shape[-2:])
        low = pixel_upsample(low, codec, (height, width))
        images.append(decoded(codec, low).float())
    return images


def _interval(values: list[float]) -> Interval:
    return bootstrap(values, resamples=200)
