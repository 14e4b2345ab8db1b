"""Files of upscale models' networks: read under each of their names, written whole, refused in one sentence."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from networks import randomised
from safetensors.torch import load_file, save_file
from torch import Tensor
from weight_files import compact, refusal

from fmboost_core.errors import ConfigError
from fmboost_core.files.locate import bundled_upscale_models
from fmboost_core.files.upscale_model import LoadedUpscaleModel, find_upscale_model, load_upscale_model
from fmboost_core.files.upscale_network import UpscaleNetwork, is_known, load_upscale_network, save_upscale_network
from fmboost_core.networks.compact import CompactNetwork
from fmboost_core.networks.rrdb import RRDBNetwork
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
    network, image = load_upscale_network(path), torch.rand(2, 3, 10, 14)
    assert isinstance(network, CompactNetwork) and is_known(path)
    assert (network.factor, network.width, network.depth) == (factor, features, layers)
    assert torch.allclose(network(image), by_hand(weights, image, factor), atol=1e-6)


def rrdb_by_hand(weights: dict[str, Tensor], image: Tensor, blocks: int) -> Tensor:
    """As Real-ESRGAN computes it, from the names of its weights; image: of even sides."""

    def conv(x: Tensor, name: str, *, bent: bool = False) -> Tensor:
        x = F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1)
        return F.leaky_relu(x, 0.2) if bent else x

    def dense(x: Tensor, name: str) -> Tensor:
        seen = x
        for i in range(1, 5):
            seen = torch.cat((seen, conv(seen, f"{name}.conv{i}", bent=True)), 1)
        return conv(seen, f"{name}.conv5") * 0.2 + x

    x = image if weights["conv_first.weight"].shape[1] == 3 else F.pixel_unshuffle(image, 2)
    first = body = conv(x, "conv_first")
    for i in range(blocks):
        inner = body
        for j in range(1, 4):
            inner = dense(inner, f"body.{i}.rdb{j}")
        body = inner * 0.2 + body
    x = first + conv(body, "conv_body")
    for name in ("conv_up1", "conv_up2"):
        x = conv(x.repeat_interleave(2, 2).repeat_interleave(2, 3), name, bent=True)
    return conv(conv(x, "conv_hr", bent=True), "conv_last")


@pytest.mark.parametrize("wrapper", ["", "params_ema"])
@pytest.mark.parametrize("factor", [2, 4])
def test_an_rrdb_network_is_read_from_its_weights(wrapper: str, factor: int, tmp_path: Path) -> None:
    weights = randomised(RRDBNetwork(factor, 8, 4, 2)).state_dict()
    path = tmp_path / ("small.pth" if wrapper else "small.safetensors")
    if wrapper:
        torch.save({wrapper: weights}, path)
    else:
        save_file(weights, path)
    network, image = load_upscale_network(path), torch.rand(2, 3, 10, 14)
    assert isinstance(network, RRDBNetwork) and is_known(path)
    assert (network.factor, network.width, network.growth, len(network.body)) == (factor, 8, 4, 2)
    assert torch.allclose(network(image), rrdb_by_hand(weights, image, 2), atol=1e-5)


def test_an_rrdb_network_takes_images_of_odd_sides() -> None:
    """What is beyond the image repeats its last pixels, and is cut off again."""
    network, image = randomised(RRDBNetwork(2, 8, 4, 1)), torch.rand(1, 3, 9, 13)
    large = network(image)
    assert large.shape == (1, 3, 18, 26)
    assert torch.equal(large, network(F.pad(image, (0, 1, 0, 1), mode="replicate"))[..., :18, :26])


def test_an_rrdb_networks_tiles_equal_the_whole() -> None:
    """They start at whole squares of pixels, of which it makes one."""
    network, image = randomised(RRDBNetwork(2, 8, 4, 1)), torch.rand(1, 3, 20, 214)
    model = LoadedUpscaleModel("", network, 2, torch.device("cpu"), torch.float32, tile=31, overlap=49)
    whole = network(image).clamp(0, 1)
    assert torch.allclose(model(image), whole, atol=1e-5)
    assert not torch.allclose(replace(model, overlap=0)(image), whole, atol=1e-3)


@pytest.mark.parametrize("network", [CompactNetwork(2, 8, 3), RRDBNetwork(2, 8, 4, 1)])
def test_what_is_written_is_read(network: UpscaleNetwork, tmp_path: Path) -> None:
    network, path = randomised(network), tmp_path / "mine.safetensors"
    save_upscale_network(network, path, {"license": "MIT"})
    assert all(tensor.dtype == torch.float16 for tensor in load_file(path).values())
    for name, weight in load_upscale_network(path).state_dict().items():
        assert torch.allclose(weight, network.state_dict()[name], atol=1e-3), name


def test_other_files_are_refused(tmp_path: Path) -> None:
    path, weights = tmp_path / "other.safetensors", compact()
    save_file({"x": torch.zeros(2)}, path)
    assert not is_known(path) and not is_known(tmp_path / "missing")
    assert "holds no compact or RRDB network of Real-ESRGAN" in refusal(lambda: load_upscale_network(path), path)
    for wrong in ({"body.6.weight": torch.zeros(13, 8, 3, 3)}, {"body.8.weight": torch.zeros(12, 8, 3, 3)}):
        save_file({**weights, **wrong}, path)
        assert refusal(lambda: load_upscale_network(path), path)
    whole = path.read_bytes()
    for content in (b"", whole[: len(whole) // 2]):
        path.write_bytes(content)
        assert "spandrel" not in refusal(lambda: load_upscale_model(path), path)
    other = RRDBNetwork(4, 8, 4, 1).state_dict()
    del other["conv_up2.weight"], other["conv_up2.bias"]  # as those for 2x without squares have none
    save_file(other, path)
    assert not is_known(path), "but spandrel knows it"
    del weights["body.3.weight"]
    save_file(weights, path)
    assert "body.3.weight" in refusal(lambda: load_upscale_network(path), path)


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_a_network_at_another_factor_makes_its_image_reduced(factor: int) -> None:
    torch.manual_seed(0)
    network, image = CompactNetwork(4, 8, 2), torch.rand(1, 3, 12, 16)
    reduced = at_factor(network, factor)
    assert reduced.factor == factor
    assert torch.allclose(reduced(image), F.avg_pool2d(network(image), 4 // factor), atol=1e-6)


def test_an_rrdb_network_for_half_as_much_sees_the_image_reduced() -> None:
    network, image = randomised(RRDBNetwork(4, 8, 4, 1)), torch.rand(1, 3, 12, 16)
    for_2x = at_factor(network, 2)
    assert for_2x.factor == 2 and at_factor(network, 4) is network
    assert torch.allclose(for_2x(image), network(F.avg_pool2d(image, 2)), atol=1e-5)
    for factor in (1, 3):
        with pytest.raises(ConfigError, match=f"start.model enlarges 4x, and the shards are for {factor}x"):
            at_factor(network, factor)


@pytest.mark.parametrize("name", bundled_upscale_models())
def test_a_bundled_one_enlarges_twice_and_keeps_the_image(name: str) -> None:
    """Reduced again, it shows the small image; and an edge is narrower than interpolation makes it."""
    network = load_upscale_network(find_upscale_model(name))
    assert network.factor == 2
    small = (0.5 + 0.3 * torch.sin(torch.arange(48.0) / 7)).expand(1, 3, 48, 48).clone()
    small[..., 24:, :] *= 0.5
    large = network(small).clamp(0, 1)
    assert (F.avg_pool2d(large, 2) - small).abs().mean() < 0.02
    blurred = F.interpolate(small, scale_factor=2, mode="bilinear")
    assert large.diff(dim=2).abs().amax() > 1.3 * blurred.diff(dim=2).abs().amax()
