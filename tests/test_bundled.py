"""The bundled weights: their results are those of this version, and better than their guides."""

from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from skimage import data

from fmboost_core import boost, load_codec, load_model
from fmboost_core.files.checkpoint import read_spec
from fmboost_core.files.locate import bundled_models
from fmboost_core.imaging.resample import resize
from fmboost_core.metrics.texture import detail
from fmboost_core.sampling.guide import pixel_upsample

GOLDEN = Path(__file__).parent / "data" / "bundled_golden.safetensors"


class Unused:
    """A codec that nothing may ask: guides are interpolated latents."""

    downscale_factor = 8

    def __init__(self, channels: int) -> None:
        self.channels = channels

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        raise AssertionError("encoded")

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        raise AssertionError("decoded")


def result(name: str) -> torch.Tensor:
    """The model's large latent for a small one of noise, at its own number of evaluations."""
    model = load_model(name)
    channels = model.spec.network.channels
    small = torch.randn(1, channels, 6, 8, generator=torch.Generator().manual_seed(11))
    upsample = "fast" if model.guide else "bilinear"
    return boost(small, model, Unused(channels), scale=2, upsample=upsample, seed=3)


@pytest.mark.parametrize("name", bundled_models())
def test_the_result_is_that_of_the_golden_file(name: str) -> None:
    """An update that changes pictures shows here. `python tests/test_bundled.py` writes the file anew."""
    golden = load_file(GOLDEN)[name]
    assert (result(name) - golden).abs().max() < 2e-3 * golden.abs().max()


@cache
def photograph() -> torch.Tensor:
    """(1,3,256,256) in [-1,1]: a public-domain photograph that comes with scikit-image."""
    crop = data.astronaut()[:256, 96:352].copy()
    return torch.from_numpy(crop).permute(2, 0, 1)[None] / 127.5 - 1


@pytest.mark.parametrize(
    ("name", "nfe"), [(name, nfe) for name in bundled_models() for nfe in {1, read_spec(name).nfe}]
)
def test_the_result_has_detail_that_the_guide_lacks(name: str, nfe: int) -> None:
    """With one evaluation and with the model's own number, at its own scale."""
    model, image = load_model(name), photograph()
    codec, scale = load_codec("builtin", model.spec.family), int(model.spec.scale)
    low = codec.encode(resize(image, (256 // scale, 256 // scale)))
    latents = codec.encode(image), pixel_upsample(low, codec, (256, 256)), boost(low, model, codec, nfe=nfe)
    reference, guide, made = (codec.decode(x).clamp(-1, 1) for x in latents)
    of_guide, of_made = detail(guide, reference), detail(made, reference)
    assert of_guide + 0.15 * (1 - of_guide) < of_made < 1.1


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("sd15-x2", "taesd"),
        ("sd15-x2-direct", "taesd"),
        ("sdxl-x2", "taesdxl"),
        ("sdxl-x2-direct", "taesdxl"),
        ("flux1-x2", "taef1"),
        ("flux1-x2-direct", "taef1"),
        ("sd3-x2", "taesd3"),
        ("sd3-x2-direct", "taesd3"),
    ],
)
def test_the_border_of_a_picture_is_as_good_as_its_middle(name: str, codec: str, shared: Path) -> None:
    """A model that was never trained at a border is worse in the outermost four latents, as TAESDXL shows them."""
    vae, image = load_codec(str(shared / "taesd" / codec)), photograph()
    low = vae.encode(resize(image, (128, 128)))
    interpolated, made = resize(vae.decode(low), (256, 256), "bicubic"), vae.decode(boost(low, load_model(name), vae))
    errors = [(x.clamp(-1, 1) - image).square().mean((0, 1)) for x in (made, interpolated)]
    middle = torch.zeros(256, 256, dtype=torch.bool)
    middle[32:-32, 32:-32] = True
    border, inside = (float(errors[0][place].mean() / errors[1][place].mean()) for place in (~middle, middle))
    assert border < 1.2 * inside


if __name__ == "__main__":
    from safetensors.torch import save_file

    save_file({name: result(name) for name in bundled_models()}, GOLDEN)
