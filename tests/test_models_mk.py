"""The rules that train the bundled models again: their commands parse, and their order works."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from fmboost_core.cli.app import make_parser
from fmboost_core.files.locate import BUNDLED_MODELS, BUNDLED_UPSCALE_MODELS, bundled_models, bundled_upscale_models
from fmboost_core.training.recipe import load_recipe

ROOT = Path(__file__).parents[1]
FOREIGN = ("realesr-general-x4v3.pth", "RealESRGAN_x4plus.pth")  # the files that the rules do not make
RULES = ROOT / "fmboost_core/training/models.mk"
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")


def commands_for(model: str, out: Path) -> list[list[str]]:
    """The commands that make would run for a model, as words."""
    make = ["make", "-n", "-f", str(RULES), model, "PYTHON=python", f"OUT={out}", "PHOTOS=photos", "CODECS=taesd"]
    # Under `make test`, another make would also print which folder it enters.
    alone = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    said = subprocess.run(make, cwd=ROOT, env=alone, capture_output=True, text=True, check=True).stdout
    return [shlex.split(line) for line in said.splitlines()]


@pytest.mark.parametrize("model", [*bundled_models(), *bundled_upscale_models()])
def test_a_bundled_model_is_made_again_by_one_command(model: str, tmp_path: Path) -> None:
    """Each command parses and needs only what an earlier one made; the last one writes the model."""
    made: set[Path] = set()
    for words in commands_for(model, tmp_path):
        if words[0] == "touch":
            continue
        assert words[:3] == ["python", "-m", "fmboost_core"]
        args = make_parser().parse_args(words[3:])
        if words[3] == "encode":
            assert args.boosted is None or Path(args.boosted) in made
        else:
            assert set(args.latents) <= made
            begun = load_recipe(args.recipe, args.set).start
            assert not begun.model or Path(begun.model) in made or begun.model in FOREIGN
            assert not begun.guide or Path(begun.guide) in made or begun.guide.startswith("taesd/")
        made.add(args.out)
    assert tmp_path / f"{model}.safetensors" in made
    places = (BUNDLED_MODELS, BUNDLED_UPSCALE_MODELS)
    assert any((place / f"{model}.safetensors").exists() for place in places)
