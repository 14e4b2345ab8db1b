"""Real hosts, found through the environment; without them these tests are skipped."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from .comfyui import ComfyUI
from .webui import Webui, found_in_environment


@pytest.fixture(scope="session")
def comfyui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyUI]:
    checkout, python = os.environ.get("COMFYUI_PATH"), os.environ.get("COMFYUI_PYTHON")
    if not checkout or not python:
        pytest.skip("needs COMFYUI_PATH (a checkout of ComfyUI) and COMFYUI_PYTHON (its interpreter)")
    base = tmp_path_factory.mktemp("comfyui")
    taesd = Path(__file__).parents[3] / "shared" / "taesd"
    (base / "models/vae_approx").mkdir(parents=True)
    for path in taesd.glob("*.safetensors"):
        shutil.copy(path, base / "models/vae_approx")
    (base / "custom_nodes").mkdir()
    (base / "custom_nodes/short_text_encoders").symlink_to(Path(__file__).with_name("short_text_encoders"))
    host = ComfyUI(Path(checkout), python, base, "--preview-method", "latent2rgb")
    yield host
    host.stop()


@pytest.fixture
def tiny_vaes(comfyui: ComfyUI) -> None:
    if not list((comfyui.base / "models/vae_approx").iterdir()):
        pytest.skip("needs the shared tiny VAEs beside the project")


@pytest.fixture(scope="session")
def webui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Webui]:
    found = found_in_environment()
    if found is None:
        pytest.skip(
            "needs WEBUI_PATH (a checkout of AUTOMATIC1111 or Forge), WEBUI_PYTHON (its interpreter) and "
            "WEBUI_CHECKPOINT (a .safetensors of SD1.5; random weights do)"
        )
    host = Webui(Path(found[0]), found[1], tmp_path_factory.mktemp("webui") / "data", found[2])
    yield host
    host.stop()
