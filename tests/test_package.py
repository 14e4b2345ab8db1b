"""What importing the package costs and pulls in."""

import subprocess
import sys

LATE = ("torchdiffeq", "huggingface_hub", "PIL", "comfy", "modules", "fmboost_core.training", "torchvision")


def test_import_pulls_in_neither_host_nor_training_nor_torchdiffeq() -> None:
    code = "import torch, sys; a = set(sys.modules); import fmboost_core; print(*(set(sys.modules) - a), sep='\\n')"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "fmboost_core" in loaded
    assert not [name for name in loaded for late in LATE if name == late or name.startswith(late + ".")]


def test_public_names() -> None:
    import fmboost_core

    for name in ("load_model", "load_codec", "boost", "upscale_image", "ModelSpec", "UNetConfig", "FMBoostError"):
        assert name in fmboost_core.__all__ and hasattr(fmboost_core, name)
