"""What importing the package costs and pulls in."""

import subprocess
import sys

import pytest

import fmboost_core

LATE = ("torchdiffeq", "huggingface_hub", "PIL", "comfy", "modules", "fmboost_core.training", "torchvision")


def loaded_after(code: str) -> set[str]:
    code += "\nimport sys; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_all_of_it_pulls_in_neither_host_nor_training_nor_torchdiffeq() -> None:
    extra = loaded_after("import torch\nfrom fmboost_core import *") - loaded_after("import torch")
    assert "fmboost_core.pipeline" in extra
    assert not [name for name in extra for late in LATE if name == late or name.startswith(late + ".")]


def test_help_does_not_wait_for_pytorch() -> None:
    loaded = loaded_after(
        "from fmboost_core.cli import main\ntry: main(['upscale', '--help'])\nexcept SystemExit: pass"
    )
    assert "fmboost_core.cli" in loaded and "torch" not in loaded


def test_every_public_name_is_there() -> None:
    for name in ("load_model", "load_codec", "boost", "upscale_image", "ModelSpec", "UNetConfig", "FMBoostError"):
        assert name in fmboost_core.__all__
    for name in fmboost_core.__all__:
        assert getattr(fmboost_core, name) is not None and name in dir(fmboost_core)
    with pytest.raises(AttributeError, match="no attribute 'bost'"):
        fmboost_core.bost  # noqa: B018
