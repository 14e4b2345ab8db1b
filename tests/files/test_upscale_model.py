"""Files of upscale models: read here or by spandrel, applied in tiles, refused in one sentence."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from weight_files import compact

from fmboost_core.errors import CheckpointError, MissingDependencyError
from fmboost_core.families import FAMILIES
from fmboost_core.files import upscale_model
from fmboost_core.files.locate import bundled_upscale_models, latent_upscale_model, upscale_model_names
from fmboost_core.files.upscale_model import OVERLAP, TILE, LoadedUpscaleModel, find_upscale_model, load_upscale_model
from fmboost_core.files.upscale_network import load_upscale_network
from fmboost_core.imaging.blur import blurred
from fmboost_core.sampling.options import BEHIND_BUNDLED

CPU = torch.device("cpu")


def test_a_file_is_read_and_applied(tmp_path: Path) -> None:
    save_file(compact(), tmp_path / "small.safetensors")
    model, image = load_upscale_model(tmp_path / "small.safetensors"), torch.rand(1, 3, 20, 28)
    assert (model.name, model.factor) == ("small", 2) and model.device == CPU
    assert torch.allclose(
        model(image), load_upscale_network(tmp_path / "small.safetensors")(image).clamp(0, 1), atol=1e-5
    )
    for dtype in (torch.float16, torch.bfloat16):
        assert load_upscale_model(tmp_path / "small.safetensors", "cpu", dtype).dtype == dtype


def test_spandrel_reads_a_compact_file_alike(tmp_path: Path) -> None:
    """So do the hosts, which all have it."""
    pytest.importorskip("spandrel")
    for path in (tmp_path / "small.safetensors", find_upscale_model("builtin")):
        if not path.exists():
            save_file(compact(), path)
        theirs, image = upscale_model._by_spandrel(path, CPU, torch.float32), torch.rand(1, 3, 20, 28)
        assert torch.allclose(theirs(image), load_upscale_network(path)(image).clamp(0, 1), atol=1e-5)
        assert (theirs.name, theirs.factor) == (path.stem, 2)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("spandrel")
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="is no upscale model that spandrel knows"):
        load_upscale_model(tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"There is no upscale model .*missing\.pth; give a file, or the name"):
        load_upscale_model(tmp_path / "missing.pth")


def test_without_spandrel_the_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "spandrel", None)
    save_file({"x": torch.zeros(1)}, tmp_path / "any.safetensors")
    with pytest.raises(
        MissingDependencyError, match=r"any.safetensors needs the package spandrel: pip install spandrel"
    ):
        load_upscale_model(tmp_path / "any.safetensors")
    assert load_upscale_model("builtin").name == "fmboost-image-x2", "which needs no package"


def test_tiles_equal_the_whole_and_tell_their_progress() -> None:
    torch.manual_seed(0)
    reach = OVERLAP - 1  # of a kernel with holes, so that it costs little
    network = nn.Sequential(nn.Conv2d(3, 12, 3, padding=reach, dilation=reach), nn.PixelShuffle(2), nn.Sigmoid())
    image, told = torch.rand(1, 3, TILE + 80, TILE + 90), list[tuple[int, int]]()
    model = LoadedUpscaleModel("any", network, 2, CPU, torch.float32)
    with torch.no_grad():
        whole = network(image)
    assert torch.allclose(model.watched(lambda *place: told.append(place))(image), whole, atol=1e-5)
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert model(image[..., :64, :64]).shape == (1, 3, 128, 128) and len(told) == 4


def test_tiles_of_the_one_for_latents_equal_the_whole_but_for_what_is_not_seen() -> None:
    """Its network looks farther than any overlap, but what it sees there hardly counts."""
    model = load_upscale_model("fmboost-latent-x2")
    assert (model.tile, model.overlap) == (512, 96)
    image = (0.5 + 0.3 * torch.sin(torch.arange(208.0) / 5)).expand(1, 3, 16, 208).clone()
    with torch.no_grad():
        whole = model.network(image).clamp(0, 1)
    apart = (replace(model, tile=8)(image) - whole).abs()
    assert 0 < apart.max() < 4 / 255 and apart.mean() < 0.1 / 255


def test_the_mean_is_that_of_what_both_make() -> None:
    image = torch.rand(1, 3, 24, 40)
    mean, both = load_upscale_model("fmboost-mean-x2"), [load_upscale_model(name) for name in bundled_upscale_models()]
    middle = (both[0](image) + both[1](image)) / 2
    sharp = middle + 0.3 * (middle - blurred(middle, 1.0))
    assert torch.allclose(mean(image), sharp.clamp(0, 1), atol=1e-5)
    assert (mean.name, mean.factor, mean.tile, mean.overlap) == ("fmboost-mean-x2", 2, 512, 96)
    assert mean.behind == BEHIND_BUNDLED and len(both) == 2
    assert {latent_upscale_model(family) for family in (*FAMILIES, None)} <= set(upscale_model_names())
    with pytest.raises(CheckpointError, match="fmboost-image-x2, fmboost-latent-x2 or fmboost-mean-x2"):
        load_upscale_model("fmboost-median-x2")


def test_it_computes_in_its_number_type() -> None:
    seen = []

    def network(image: Tensor) -> Tensor:
        seen.append(image.dtype)
        return image.repeat_interleave(2, 2).repeat_interleave(2, 3)

    large = LoadedUpscaleModel("any", network, 2, CPU, torch.bfloat16)(torch.rand(1, 3, 8, 8))
    assert seen == [torch.bfloat16] and large.dtype == torch.float32
