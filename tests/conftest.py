"""Fixtures that several test files share."""

from pathlib import Path

import pytest
import torch
from networks import make_model

from fmboost_core.checkpoint import Model
from fmboost_core.codec import TinyVAE, tiny_codec


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
