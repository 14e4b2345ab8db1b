"""Names and meanings of all figures: which value is best, the unit, a description. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import ConfigError

BEST = ("higher", "lower", "one", "zero")


@dataclass(frozen=True)
class Meaning:
    """How to read a figure.

    better: one of `BEST`, which values are best; unit: "" for none; words: a description for people.
    """

    better: str
    unit: str
    words: str

    def __post_init__(self) -> None:
        if self.better not in BEST:
            raise ConfigError(f"better must be one of {', '.join(BEST)}, but it is {self.better!r}.")

    def loss(self, value: float) -> float:
        """A number that falls as the value gets better."""
        return {"higher": -value, "lower": value, "one": abs(value - 1), "zero": abs(value)}[self.better]

    @property
    def best_in_words(self) -> str:
        """Such as "higher is better" or "1 is best"."""
        return {"one": "1 is best", "zero": "0 is best"}.get(self.better, f"{self.better} is better")


# Figures of one image and its reference image; `image_metrics.FUNCTIONS` computes them.
METRICS: dict[str, Meaning] = {
    "psnr": Meaning("higher", "dB", "peak signal-to-noise ratio"),
    "ssim": Meaning("higher", "", "structural similarity"),
    "mse": Meaning("lower", "", "mean squared error on [-1,1]"),
    "gmsd": Meaning("lower", "", "gradient magnitude similarity deviation"),
    "haarpsi": Meaning("higher", "", "Haar wavelet-based perceptual similarity"),
    "swd": Meaning("lower", "", "sliced Wasserstein distance of Laplacian patches"),
    "spectrum": Meaning("lower", "dB", "distance of the power spectrum, mean over frequencies"),
    "detail": Meaning("one", "", "local contrast over the reference's"),
    "overshoot": Meaning("lower", "%", "grain on flat areas and rims beside edges, of the range nearby"),
    "colour": Meaning("lower", "1/255", "shift of the worst channel's mean"),
    "red": Meaning("zero", "1/255", "shift of red's mean"),
    "green": Meaning("zero", "1/255", "shift of green's mean"),
    "blue": Meaning("zero", "1/255", "shift of blue's mean"),
    "lpips": Meaning("lower", "", "learned perceptual distance, AlexNet"),
}
DEFAULT_METRICS = tuple(name for name in METRICS if name != "lpips")

# Figures of latents, of sets of images, and of an image without a reference.
OTHERS: dict[str, Meaning] = {
    "latent_mse": Meaning("lower", "", "mean squared error of the latent"),
    "fid": Meaning("lower", "", "Frechet distance of the images' features"),
    "p_fid": Meaning("lower", "", "Frechet distance of the patches' features"),
    "clip": Meaning("higher", "", "100 times the cosine of image and caption in CLIP"),
    "clip_iqa": Meaning("higher", "", "CLIP's preference of Good photo to Bad photo, 0 to 1"),
}
MEANINGS: dict[str, Meaning] = {**METRICS, **OTHERS}


def check_names(names: Iterable[str]) -> tuple[str, ...]:
    """The names of metrics, each once. Raises `ConfigError` for none and for unknown ones."""
    found = tuple(dict.fromkeys(names))
    unknown = [name for name in found if name not in METRICS]
    if unknown or not found:
        raise ConfigError(f"There is no metric {', '.join(unknown) or 'given'}; choose from {', '.join(METRICS)}.")
    return found
