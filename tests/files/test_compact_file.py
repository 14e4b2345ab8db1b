"""Files of compact networks: read under each of their names, written whole, refused in one sentence."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from networks import randomised
from safetensors.torch import load_file, save_file
from torch import Tensor
from weight_files import compact, refusal

from fmboost_core.files.compact_file import is_compact, load_compact, save_compact
from fmboost_core.files.locate import BUNDLED_UPSCALE_MODEL
from fmboost_core.files.upscale_model import load_upscale_model
from fmboost_core.networks.compact import CompactNetwork
from fmboost_core.training.enlarging import at_factor


def by_hand(weights: dict[str, Tensor], image: Tensor, factor: int = 2) -> Tensor:
    x, last = image, max(int(name.split(".")[1]) for name in weights)
    for i in range(0, last + 1, 2):
        x = F.conv2d(x, weights[f"body.{i}.weight"], weights[f"body.{i}.bias"], padding=1)
        x = x if i == last else F.prelu(x, weights[f"body.{i + 1}.weight"])
    return F.pixel_shuffle(x, factor) + F.interpolate(image, scale_factor=factor, mode="nearest")


@pytest.mark.parametrize("wrapper", ["", "params", "params_ema"])
@pytest.mark.parametrize(("features", "layers", "factor"), [(8, 2, 2), (4, 3, 4)])
def test_a_compact_network_is_read_from_its_weights(
    wrapper: str, features: int, layers: int, factor: int, tmp_path: Path
) -> None:
    path, weights = tmp_path / ("small.pth" if wrapper else "small.safetensors"), compact(features, layers, factor)
    if wrapper:  # as Real-ESRGAN's files are
        torch.save({wrapper: weights}, path)
    else:
        save_file(weights, path)
    network, image = load_compact(path), torch.rand(2, 3, 10, 14)
    assert is_compact(path) and (network.factor, network.width, network.depth) == (factor, features, layers)
    assert torch.allclose(network(image), by_hand(weights, image, factor), atol=1e-6)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    network, path = randomised(CompactNetwork(2, 8, 3)), tmp_path / "mine.safetensors"
    save_compact(network, path, {"license": "MIT"})
    assert all(tensor.dtype == torch.float16 for tensor in load_file(path).values())
    for name, weight in load_compact(path).state_dict().items():
        assert torch.allclose(weight, network.state_dict()[name], atol=1e-3), name


def test_other_files_are_refused(tmp_path: Path) -> None:
    path, weights = tmp_path / "other.safetensors", compact()
    save_file({"x": torch.zeros(2)}, path)
    assert not is_compact(path) and not is_compact(tmp_path / "missing")
    assert "holds no compact network of Real-ESRGAN" in refusal(lambda: load_compact(path), path)
    for wrong in ({"body.6.weight": torch.zeros(13, 8, 3, 3)}, {"body.8.weight": torch.zeros(12, 8, 3, 3)}):
        save_file({**weights, **wrong}, path)
        assert refusal(lambda: load_compact(path), path)
    whole = path.read_bytes()
    for content in (b"", whole[: len(whole) // 2]):
        path.write_bytes(content)
        assert "spandrel" not in refusal(lambda: load_upscale_model(path), path)
    del weights["body.3.weight"]
    save_file(weights, path)
    assert "body.3.weight" in refusal(lambda: load_compact(path), path)


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_a_network_at_another_factor_makes_its_image_reduced(factor: int) -> None:
    torch.manual_seed(0)
    network, image = CompactNetwork(4, 8, 2), torch.rand(1, 3, 12, 16)
    reduced = at_factor(network, factor)
    assert reduced.factor == factor
    assert torch.allclose(reduced(image), F.avg_pool2d(network(image), 4 // factor), atol=1e-6)


def test_the_bundled_one_enlarges_twice_and_keeps_the_image() -> None:
    """Reduced again, it shows the small image; and an edge is narrower than interpolation makes it."""
    network = load_compact(BUNDLED_UPSCALE_MODEL)
    assert (network.factor, network.width, network.depth) == (2, 64, 32)
    small = (0.5 + 0.3 * torch.sin(torch.arange(48.0) / 7)).expand(1, 3, 48, 48).clone()
    small[..., 24:, :] *= 0.5
    large = network(small).clamp(0, 1)
    assert (F.avg_pool2d(large, 2) - small).abs().mean() < 0.02
    blurred = F.interpolate(small, scale_factor=2, mode="bilinear")
    assert large.diff(dim=2).abs().amax() > 1.3 * blurred.diff(dim=2).abs().amax()
