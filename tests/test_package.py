"""What importing the package costs and pulls in."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import fmboost_core
from fmboost_core.files.checkpoint import load_model
from fmboost_core.files.locate import BUNDLED_MODELS, bundled_models
from fmboost_core.files.weight_file import sha256_of

LATE = (
    "torchdiffeq",
    "huggingface_hub",
    "PIL",
    "comfy",
    "modules",
    "gradio",
    "fmboost_core.training",
    "fmboost_core.evaluation",
    "accelerate",
    "matplotlib",
    "torchvision",
    "diffusers",
    "transformers",
)


def loaded_after(code: str) -> set[str]:
    code += "\nimport sys; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_all_of_it_pulls_in_neither_host_nor_training_nor_torchdiffeq() -> None:
    extra = loaded_after("import torch\nfrom fmboost_core import *") - loaded_after("import torch")
    assert "fmboost_core.sampling.upscaler" in extra
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


def test_what_the_registry_leaves_out_is_only_at_the_top() -> None:
    """A pattern without its slash would take help pages away: web/docs is another folder than docs."""
    root = Path(__file__).parents[1]
    for line in (root / ".comfyignore").read_text().split():
        assert line.startswith("/") and (root / line.strip("/")).exists(), line


def test_the_bundled_weights_are_those_of_their_cards() -> None:
    """The index and a file's own card name its checksum; no file is too large to be committed."""
    weights = BUNDLED_MODELS.parent
    index = (weights / "README.md").read_text(encoding="utf-8")
    files = sorted(weights.rglob("*.safetensors"))
    assert {"sd15-x2", "sd15-x4", "sdxl-x2"} <= {path.stem for path in files}
    for path in files:
        place, checksum = path.relative_to(weights).as_posix(), sha256_of(path)
        card = weights / "cards" / f"{'codec-' if path.parent.name == 'codecs' else ''}{path.stem}.md"
        assert f"{checksum}  {place}\n" in index and f"](cards/{card.name})" in index
        assert f"`{place}`:\n\n    {checksum}\n" in card.read_text(encoding="utf-8")
        assert path.stat().st_size < 64e6
    assert len(files) == len(list(weights.glob("cards/*.md")))


@pytest.mark.parametrize("name", bundled_models())
def test_every_bundled_model_is_finite_and_of_its_name(name: str) -> None:
    model = load_model(name)
    family, _, scale = name.partition("-x")
    assert (model.spec.name, model.spec.family, model.spec.license) == (name, family, "MIT")
    assert model.spec.scale == int(scale[0])
    guide = torch.randn(1, model.spec.network.channels, 16, 16)
    assert torch.isfinite(model.velocity(guide, 0.0, model.conditioning(guide))).all()
