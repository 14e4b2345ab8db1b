"""Checkpoints of the reference implementation: their architecture, their weights and their outputs."""

from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import TINY
from safetensors.torch import load_file, save_file
from torch import Tensor
from weight_files import EMA, GROUP, ONLINE, prefixed, refusal, same_weights, state_dict

from fmboost_core.errors import ConfigError
from fmboost_core.files.checkpoint import describe, import_reference, load_model
from fmboost_core.files.legacy.reference import reference_alpha_bar
from fmboost_core.model import Model
from fmboost_core.networks.config import UNetConfig
from fmboost_core.networks.unet import LatentUNet

# Architectures of the reference, with the options that their shapes cannot tell.
REFERENCE = {
    "middle only": (replace(GROUP, attention_rates=()), {}),
    "two rates": (replace(GROUP, multipliers=(1, 1, 2), attention_rates=(1, 4)), {}),
    "deep": (replace(GROUP, multipliers=(1, 1, 1, 3), res_blocks=2, attention_rates=(8,), head_width=64), {}),
    "wider base": (replace(GROUP, base=64, heads=2, head_width=16), {"heads": 2}),
    "linear": (replace(GROUP, attention="linear"), {"attention": "linear"}),
    "standard": (replace(GROUP, attention_layout="standard"), {"layout": "standard"}),
    "flux": (replace(GROUP, channels=16), {"family": "flux1"}),
}


@pytest.mark.parametrize(("config", "options"), REFERENCE.values(), ids=REFERENCE)
def test_the_architecture_is_derived(config: UNetConfig, options: dict[str, Any], tmp_path: Path) -> None:
    tensors = state_dict(config)
    torch.save({"state_dict": prefixed(EMA, tensors)}, tmp_path / "a.ckpt")
    model = import_reference(tmp_path / "a.ckpt", **options)
    assert model.spec.network == config
    assert model.spec.name == "a"
    assert same_weights(model, tensors)


@pytest.mark.parametrize(
    ("wrapper", "prefix"),
    [
        (None, ""),
        (None, "module."),
        ("model", "net."),
        ("module", "model."),
        ("state_dict", ONLINE),
        ("state_dict", EMA),
        ("state_dict", "ema_model.ema_model."),
        ("state_dict", "model._orig_mod.net."),
    ],
)
def test_wrappers_and_prefixes(wrapper: str | None, prefix: str, tmp_path: Path) -> None:
    tensors = state_dict(GROUP)
    content = prefixed(prefix, tensors)
    torch.save({wrapper: content, "epoch": 3} if wrapper else content, tmp_path / "a.pt")
    assert same_weights(load_model(tmp_path / "a.pt"), tensors)


def test_bare_safetensors(tmp_path: Path) -> None:
    tensors = state_dict(GROUP)
    save_file(tensors, tmp_path / "a.safetensors")
    assert same_weights(load_model(tmp_path / "a.safetensors"), tensors)


def lightning(ema: dict[str, Tensor], online: dict[str, Tensor]) -> dict[str, Any]:
    """The shape of a checkpoint of the reference's trainer."""
    state: OrderedDict[str, Any] = OrderedDict(prefixed(ONLINE, online))
    state.update(prefixed(EMA, ema))
    state["ema_model.initted"], state["ema_model.step"] = torch.tensor(True), torch.tensor(7)
    state["diffusion.alpha_bar_t"] = torch.zeros(1000)
    state["first_stage.decoder.conv_in.weight"] = torch.zeros(2, 2)
    state._metadata = OrderedDict({"": {"version": 1}})  # type: ignore[attr-defined]
    return {
        "epoch": 1,
        "pytorch-lightning_version": "2.1",
        "state_dict": state,
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}}],
        "hyper_parameters": {"lr": 1e-4, "fm_cfg": Configuration({"target": "x"})},
    }


class Configuration(dict[str, Any]):
    """A configuration object as in Lightning's hyperparameters: foreign to any unpickler that does not import it."""

    def __init__(self, content: dict[str, Any]) -> None:
        super().__init__(content)
        self.flags = {"readonly"}

    def __reduce__(self) -> Any:
        return (Configuration, ({},), {"flags": self.flags}, iter([1]), iter([("target", "x")]))

    def append(self, _item: object) -> None:
        raise AssertionError("a foreign object came to life")

    extend = append


def test_ema_and_online_weights_are_chosen(tmp_path: Path) -> None:
    ema, online = state_dict(GROUP, seed=1), state_dict(GROUP, seed=2)
    torch.save(lightning(ema, online), tmp_path / "a.ckpt")
    for asked, kind, tensors in ((None, "ema", ema), ("ema", "ema", ema), ("online", "online", online)):
        model = import_reference(tmp_path / "a.ckpt", weights=asked)
        assert model.spec.weights == kind
        assert same_weights(model, tensors)


def test_absent_weights_are_not_replaced_in_silence(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    torch.save({"state_dict": prefixed(ONLINE, state_dict(GROUP))}, path)
    assert "no ema weights" in refusal(lambda: import_reference(path, weights="ema"), path)
    assert import_reference(path).spec.weights == "online"
    with pytest.raises(ConfigError, match="weights"):
        import_reference(path, weights="best")


def test_reference_alpha_bar(tmp_path: Path) -> None:
    assert reference_alpha_bar(400) == pytest.approx(0.65390, abs=5e-6)
    assert reference_alpha_bar(0) == 1
    assert reference_alpha_bar(999) == pytest.approx(0, abs=1e-9)
    torch.save(state_dict(GROUP), tmp_path / "a.pt")
    spec = import_reference(tmp_path / "a.pt", noise_step=200).spec
    assert (spec.noise_step, spec.noise_steps, spec.alpha_bar) == (200, (200,), reference_alpha_bar(200))


def test_impossible_arguments(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save(state_dict(GROUP), path)
    for bad in (
        {"heads": 0},
        {"attention": "fast"},
        {"layout": "x"},
        {"family": "sd9"},
        {"noise_step": 1000},
        {"scale": 0.5},
    ):
        with pytest.raises(ConfigError, match=str(next(iter(bad.values())))):
            import_reference(path, **bad)
    assert "5 heads" in refusal(lambda: import_reference(path, heads=5), path)
    assert "SD1.5 or SDXL" in refusal(lambda: import_reference(path, family="flux1"), path)


def golden_values(number: int, shape: torch.Size) -> Tensor:
    """Values in [-1,1) that any machine and version of PyTorch makes alike, which torch.randn does not promise."""
    index = torch.arange(shape.numel(), dtype=torch.float64)
    noise = torch.sin(index * 12.9898 + number * 78.233) * 43758.5453
    return ((noise - noise.floor()) * 2 - 1).float().reshape(shape)


def golden_parameters(config: UNetConfig) -> dict[str, Tensor]:
    """Parameters by their names in order: gains about 1, biases about 0, weights that keep the scale."""
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in LatentUNet(config).state_dict().items()}
    tensors = {}
    for number, name in enumerate(sorted(shapes)):
        values = golden_values(number, shapes[name])
        if values.ndim > 1:
            tensors[name] = values * (3 / values[0].numel()) ** 0.5
        else:
            gain = name.endswith(("norm.weight", "layers.0.weight", "out.0.weight"))
            tensors[name] = 0.2 * values + gain
    return tensors


GOLDEN_CONFIG = replace(GROUP, multipliers=(1, 2, 2), attention_rates=(2, 4))


def golden_model(tmp_path: Path, attention: str, layout: str = "reference") -> Model:
    torch.save({"state_dict": prefixed(EMA, golden_parameters(GOLDEN_CONFIG))}, tmp_path / "a.ckpt")
    return import_reference(tmp_path / "a.ckpt", attention=attention, layout=layout)


@torch.no_grad()
def golden_difference(model: Model, kind: str) -> float:
    """Largest difference to what the reference gave.

    Made with CompVis/fm-boosting at the state of 2024, fmboost/models/unet: EfficientUNet(in_channels=8,
    model_channels=32, out_channels=4, num_res_blocks=1, attention_resolutions=[2, 4], channel_mult=[1, 2, 2],
    dim_head=8, num_heads=4, use_linear_attn=(kind == "linear"), pool_factor=-1), `golden_parameters` loaded
    strictly, called with x and context = golden_values(1000 and 1001, (2, 4, 8, 8)) and t = [0.25, 0.8].
    """
    expected = load_file(Path(__file__).parents[1] / "data" / "reference_golden.safetensors")[kind]
    x, guide = (golden_values(number, expected.shape) for number in (1000, 1001))
    return (model.velocity(x, torch.tensor([0.25, 0.8]), model.conditioning(guide)) - expected).abs().max().item()


@pytest.mark.parametrize("attention", ["full", "linear"])
def test_equals_the_reference(attention: str, tmp_path: Path) -> None:
    assert golden_difference(golden_model(tmp_path, attention), attention) < 1e-5


def test_the_golden_outputs_can_tell(tmp_path: Path) -> None:
    """What shapes cannot tell makes a difference that the comparison sees."""
    assert golden_difference(golden_model(tmp_path, "full", "standard"), "full") > 1e-3
    assert golden_difference(golden_model(tmp_path, "linear"), "full") > 1e-3


def test_foreign_state_dicts_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    good = state_dict(GROUP)

    def refused(tensors: dict[str, Tensor]) -> str:
        torch.save(tensors, path)
        return refusal(lambda: load_model(path), path)

    message = refused({f"conv{i}.weight": torch.zeros(1) for i in range(9)})
    assert "input_blocks.0.0.weight is missing" in message
    assert "9 tensors (conv0.weight" in message
    assert "and 6 more" in message
    message = refused({**good, "pool.down_conv.weight": torch.zeros(1), "un_pool.up_conv.weight": torch.zeros(1)})
    assert "pool_factor" in message
    assert "pool.down_conv.weight, un_pool.up_conv.weight" in message
    message = refused(state_dict(TINY))
    assert "input_blocks.1.0.in_layers.0.bias" in message or "multiple of 32" in message
    message = refused(state_dict(replace(TINY, base=32)))
    assert "missing" in message
    assert "input_blocks.1.0.in_layers.0.bias" in message
    assert "out.2.bias" in refused({k: v for k, v in good.items() if k != "out.2.bias"})
    assert "out.2.weight" in refused({k: v for k, v in good.items() if k != "out.2.weight"})
    assert "unexpected (label_emb.weight)" in refused({**good, "label_emb.weight": torch.zeros(1)})
    for shape in ((), (0,), (32,), (10**6, 1)):
        refused({**good, "input_blocks.0.0.weight": torch.zeros(shape)})
        refused({**good, "input_blocks.1.0.in_layers.2.weight": torch.zeros(shape)})
    refused({**good, "input_blocks.9999.0.weight": torch.zeros(1)})


def test_describe_reference(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    torch.save(lightning(state_dict(GROUP), state_dict(GROUP)), path)
    facts = describe(path)
    assert facts["kind"] == "reference"
    assert facts["dtype"] == "float32"
    assert "multipliers" in facts["derived"]
    assert {"heads", "attention", "attention_layout"} <= set(facts["assumed"])
    assert len(facts["sha256"]) == 64


def test_nan_in_a_reference_checkpoint(tmp_path: Path) -> None:
    tensors = state_dict(GROUP)
    tensors["time_embed.0.bias"] = torch.full_like(tensors["time_embed.0.bias"], torch.nan)
    torch.save(prefixed(EMA, tensors), tmp_path / "a.ckpt")
    assert "time_embed.0.bias" in refusal(lambda: load_model(tmp_path / "a.ckpt"))
