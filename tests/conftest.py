"""Fixtures that several test files share."""

from pathlib import Path

import numpy as np
import pytest
import torch
from networks import make_model
from PIL import Image

from fmboost_core.codecs.load import save_codec
from fmboost_core.codecs.tiny import TinyVAE, tiny_codec
from fmboost_core.files.checkpoint import save_model
from fmboost_core.model import Model


@pytest.fixture
def model() -> Model:
    return make_model()


@pytest.fixture
def codec() -> TinyVAE:
    torch.manual_seed(0)
    return tiny_codec(width=16, blocks=1, stem=4).eval().requires_grad_(False)


@pytest.fixture
def shared() -> Path:
    """Photographs and tiny VAEs that developers have beside the project; a test that needs them is skipped without."""
    folder = Path(__file__).parents[2] / "shared"
    if not (folder / "taesd").is_dir():
        pytest.skip("needs the shared tiny VAEs and photographs beside the project")
    return folder


@pytest.fixture
def places(model: Model, codec: TinyVAE, tmp_path: Path) -> list[str]:
    """A tiny model, three photographs and the tiny codec, as the evaluation's commands take them."""
    save_model(model, tmp_path / "tiny.safetensors", torch.float32)
    save_codec(codec, tmp_path / "codec.safetensors", license="MIT", trained_on="nothing")
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        Image.fromarray(rng.integers(0, 256, (80, 64, 3), dtype=np.uint8)).save(tmp_path / "photos" / f"{name}.png")
    paths = (tmp_path / "tiny.safetensors", tmp_path / "photos", tmp_path / "codec.safetensors")
    return [str(paths[0]), "--photos", str(paths[1]), "--codec", str(paths[2])]
