"""Model files of FMBoost: saved, loaded, described and converted."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from networks import TINY, make_model
from safetensors.torch import load_file
from torch import nn
from weight_files import EMA, GROUP, output, prefixed, refusal, rewritten, same_weights, state_dict

from fmboost_core.files.checkpoint import convert, describe, load_model, read_spec, save_model
from fmboost_core.model import Model
from fmboost_core.networks.config import UNetConfig
from fmboost_core.networks.unet import LatentUNet

CONFIGS = {
    "group": (GROUP, "sd15"),
    "linear": (replace(TINY, base=32, attention_rates=(1,), attention="linear", heads=2, head_width=8), "sdxl"),
    "16 channels": (replace(TINY, channels=16, multipliers=(1, 1, 2), res_blocks=2), "flux1"),
}


@pytest.mark.parametrize(("config", "family"), CONFIGS.values(), ids=CONFIGS)
def test_saved_is_loaded(config: UNetConfig, family: str, tmp_path: Path) -> None:
    model = make_model(config, family=family, scale=3.0, nfe=2, license="CC0")
    save_model(model, tmp_path / "a.safetensors")
    loaded = load_model(tmp_path / "a.safetensors")
    assert loaded.spec == read_spec(tmp_path / "a.safetensors") == model.spec
    assert loaded.dtype == torch.float32
    assert not any(p.requires_grad or p.is_meta for p in loaded.network.parameters())
    assert output(model).std() > 0
    assert same_weights(loaded, model.network.state_dict()) and torch.allclose(output(loaded), output(model), atol=1e-5)


class Late(nn.Linear):
    """A linear layer that gets its weights as it is loaded, such as ComfyUI's where it streams weights to a GPU."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = in_features, out_features
        vars(self).update(weight=None, bias=None)


def test_a_hosts_layers_may_have_no_weights_before(tmp_path: Path) -> None:
    model = make_model(GROUP)
    save_model(model, tmp_path / "a.safetensors")
    loaded = load_model(tmp_path / "a.safetensors", SimpleNamespace(**vars(nn) | {"Linear": Late}))
    assert any(isinstance(module, Late) for module in loaded.network.modules())
    assert same_weights(loaded, model.network.state_dict()) and torch.allclose(output(loaded), output(model), atol=1e-5)


def test_half_precision_is_stored_and_comes_back_as_float32(tmp_path: Path) -> None:
    model, path = make_model(), tmp_path / "a.safetensors"
    save_model(model, path, torch.float16)
    assert {t.dtype for t in load_file(path).values()} == {torch.float16}
    assert model.dtype == torch.float32
    loaded = load_model(str(path))
    assert loaded.dtype == torch.float32
    torch.testing.assert_close(output(loaded), output(model), atol=1e-2, rtol=1e-2)


def test_saving_refuses_weights_of_another_specification(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    other = Model(replace(make_model().spec, network=replace(TINY, res_blocks=2)), LatentUNet(TINY))
    assert "missing" in refusal(lambda: save_model(other, path), path)
    assert not list(tmp_path.iterdir())


def test_a_loaded_model_does_not_depend_on_its_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_model(make_model(), path)
    loaded = load_model(path)
    before = output(loaded)
    path.write_bytes(b"\0" * path.stat().st_size)
    assert torch.equal(output(loaded), before)


def test_importing_it_is_cheap() -> None:
    code = "import sys, fmboost_core.files.checkpoint; print(*{'safetensors', 'huggingface_hub'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.split() == []


def test_describing(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_model(make_model(), path, torch.float16)
    facts = describe(path)
    assert facts["kind"] == "fmboost"
    assert facts["specification"]["network"]["base"] == TINY.base
    assert facts["parameters"] == sum(p.numel() for p in LatentUNet(TINY).parameters())
    assert facts["dtype"] == "F16"
    assert facts["bytes"] == path.stat().st_size
    assert facts["derived"] == facts["assumed"] == []
    path.write_bytes(path.read_bytes() + b"\0")
    refusal(lambda: describe(path), path)


def test_a_checkpoint_of_the_reference_has_no_specification(tmp_path: Path) -> None:
    torch.save(state_dict(GROUP), tmp_path / "a.pt")
    assert "fmboost convert" in refusal(lambda: read_spec(tmp_path / "a.pt"), tmp_path / "a.pt")


def test_convert_keeps_the_options(tmp_path: Path) -> None:
    src, dst = tmp_path / "a.ckpt", tmp_path / "b.safetensors"
    torch.save({"state_dict": prefixed(EMA, state_dict(GROUP))}, src)
    convert(src, dst, dtype=torch.float16, attention="linear", name="mine", scale=4)
    loaded = load_model(dst)
    assert (loaded.spec.name, loaded.spec.network.attention, loaded.spec.scale) == ("mine", "linear", 4)
    convert(dst, tmp_path / "c.safetensors")
    assert torch.equal(output(load_model(tmp_path / "c.safetensors")), output(loaded))
    assert "own specification" in refusal(lambda: convert(dst, tmp_path / "d.safetensors", heads=2), dst)
    with pytest.raises(TypeError):
        convert(src, dst, head=2)


def test_a_model_of_strength_1_is_stored_as_older_versions_know_it(tmp_path: Path) -> None:
    assert "strength" not in json.loads(make_model().spec.to_json())
    model = make_model()
    crisp = Model(replace(model.spec, strength=1.3), model.network)
    save_model(crisp, tmp_path / "crisp.safetensors")
    assert load_model(tmp_path / "crisp.safetensors").spec == crisp.spec


def specification(**changes: Any) -> str:
    return json.dumps({**json.loads(make_model().spec.to_json()), **changes})


def network(**changes: Any) -> dict[str, Any]:
    return {**json.loads(make_model().spec.to_json())["network"], **changes}


SPECIFICATIONS = {
    "": "JSON",
    "{": "JSON",
    "[]": "network",
    "[" * 100_000: "does not work",
    "{}": "network",
    specification(colour="red"): "colour",
    specification(format_version=2): "format_version",
    specification(family="sd9"): "family",
    specification(strength=0): "strength must be above 0",
    specification(strength="1.3"): "strength must be above 0",
    specification(scale=10**400): "does not work",
    specification(network=network(base=-1)): "base",
    specification(network=network(base=10**12)): "network",
    specification(network=network(res_blocks=10**9)): "too few",
    specification(network=network(multipliers=[1] * 10**5)): "too few",
    specification(network=network(norm="group")): "base",
    specification(network=network(base=16)): "of another shape",
    specification(network=network(attention_rates=[1])): "cannot be built",
}


@pytest.mark.parametrize(("text", "named"), SPECIFICATIONS.items(), ids=range(len(SPECIFICATIONS)))
def test_specifications_that_do_not_work(text: str, named: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    rewritten(path, {}, {"fmboost": text})
    assert named in refusal(lambda: load_model(path), path)
