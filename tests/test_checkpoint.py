"""Files of weights: round trips, the reference's checkpoints, and every bad file refused in one sentence."""

import io
import json
import os
import pickle
import re
import subprocess
import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import TINY, make_model, randomised
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from fmboost_core.errors import CheckpointError, ConfigError, MissingDependencyError
from fmboost_core.files import locate
from fmboost_core.files.checkpoint import convert, describe, import_reference, load_model, save_model
from fmboost_core.files.legacy.reference import reference_alpha_bar
from fmboost_core.files.locate import bundled_models
from fmboost_core.model import Model
from fmboost_core.networks.config import UNetConfig
from fmboost_core.networks.unet import LatentUNet

EMA, ONLINE = "ema_model.ema_model.net.", "model.net."
GROUP = UNetConfig(
    base=32, multipliers=(1, 2), res_blocks=1, attention_rates=(2,), head_width=8, attention_layout="reference"
)
OURS = {
    "tiny": TINY,
    "group": GROUP,
    "linear": replace(TINY, base=32, attention_rates=(1,), attention="linear", heads=2, head_width=8),
    "16 channels": replace(TINY, channels=16, multipliers=(1, 1, 2), res_blocks=2),
}
# One architecture of the reference each, with the arguments that its shapes cannot tell.
REFERENCE = {
    "middle only": (replace(GROUP, attention_rates=()), {}),
    "two rates": (replace(GROUP, multipliers=(1, 1, 2), attention_rates=(1, 4)), {}),
    "deep": (replace(GROUP, multipliers=(1, 1, 1, 3), res_blocks=2, attention_rates=(8,), head_width=64), {}),
    "wider base": (replace(GROUP, base=64, heads=2, head_width=16), {"heads": 2}),
    "linear": (replace(GROUP, attention="linear"), {"attention": "linear"}),
    "standard": (replace(GROUP, attention_layout="standard"), {"layout": "standard"}),
    "flux": (replace(GROUP, channels=16), {"family": "flux1"}),
}


def family_of(config: UNetConfig) -> str:
    return "flux1" if config.channels == 16 else "sd15"


def state_dict(config: UNetConfig, seed: int = 0) -> dict[str, Tensor]:
    return randomised(LatentUNet(config), seed).state_dict()


def prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def same_weights(model: Model, tensors: dict[str, Tensor]) -> bool:
    return all(torch.equal(v, tensors[k]) for k, v in model.network.state_dict().items())


@torch.no_grad()
def output(model: Model) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    x, guide = torch.randn(2, 2, model.spec.network.channels, 8, 8, generator=generator)
    return model.velocity(x, torch.tensor([0.25, 0.75]), guide)


def refusal(call: Callable[[], object], path: Path | None = None) -> str:
    """The message of the CheckpointError: one sentence, which names the file."""
    with pytest.raises(CheckpointError) as caught:
        call()
    message = str(caught.value)
    assert message.endswith(".")
    assert "\n" not in message
    assert not re.search(r"[.!?] [A-Z]", message), f"more than one sentence: {message}"
    assert len(message) < 700
    if path is not None:
        assert str(path) in message
    return message


# --- our format


@pytest.mark.parametrize("config", OURS.values(), ids=OURS)
def test_saved_is_loaded(config: UNetConfig, tmp_path: Path) -> None:
    model = make_model(config, family=family_of(config), scale=3.0, nfe=2, license="CC0")
    save_model(model, tmp_path / "a.safetensors")
    loaded = load_model(tmp_path / "a.safetensors")
    assert loaded.spec == model.spec
    assert loaded.dtype == torch.float32
    assert not any(p.requires_grad or p.is_meta for p in loaded.network.parameters())
    assert output(model).std() > 0
    assert same_weights(loaded, model.network.state_dict()) and torch.allclose(output(loaded), output(model), atol=1e-5)


def test_half_precision_is_stored_and_comes_back_as_float32(tmp_path: Path) -> None:
    model, path = make_model(), tmp_path / "a.safetensors"
    save_model(model, path, torch.float16)
    assert {t.dtype for t in load_file(path).values()} == {torch.float16}
    assert model.dtype == torch.float32
    loaded = load_model(str(path))
    assert loaded.dtype == torch.float32
    torch.testing.assert_close(output(loaded), output(model), atol=1e-2, rtol=1e-2)


def test_saving_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    save_model(make_model(), path)
    before = path.read_bytes()

    def cut(partial: Path, _content: bytes) -> None:
        with partial.open("wb") as file:
            file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_bytes", cut)
    assert "No space left" in refusal(lambda: save_model(make_model(), path), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_saving_refuses_what_could_not_be_loaded(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    large = make_model()
    large.network.out[2].bias[0] = 1e6
    assert "out.2.bias" in refusal(lambda: save_model(large, path, torch.float16), path)
    other = Model(replace(make_model().spec, network=replace(TINY, res_blocks=2)), LatentUNet(TINY))
    refusal(lambda: save_model(other, path), path)
    refusal(lambda: save_model(make_model(), tmp_path / "a.ckpt"), tmp_path / "a.ckpt")
    refusal(lambda: save_model(make_model(), tmp_path / "none" / "a.safetensors"), tmp_path / "none")
    assert not list(tmp_path.iterdir())


def test_a_loaded_model_does_not_depend_on_its_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_model(make_model(), path)
    loaded = load_model(path)
    before = output(loaded)
    path.write_bytes(b"\0" * path.stat().st_size)
    assert torch.equal(output(loaded), before)


# --- names and addresses


def test_bundled_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locate, "BUNDLED_MODELS", tmp_path)
    save_model(make_model(license="CC0"), tmp_path / "small.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "codec-x.safetensors", metadata={"fmboost-codec": "{}"})
    assert bundled_models() == ["small"]
    assert load_model("small").spec.license == "CC0"
    for name in ("codec-x", "large", "../small", "x" * 300, "a\0b"):
        message = refusal(lambda name=name: load_model(name))
        assert "small" in message
        assert "path must exist" in message


def test_a_damaged_bundled_file_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locate, "BUNDLED_MODELS", tmp_path)
    (tmp_path / "small.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    assert "git lfs pull" in refusal(lambda: load_model("small"))


def fake_hub(monkeypatch: pytest.MonkeyPatch, download: Callable[..., str]) -> None:
    hub = types.ModuleType("huggingface_hub")
    hub.hf_hub_download = download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)


@pytest.mark.parametrize(("suffix", "revision"), [("", "main"), ("@v1", "v1"), ("@refs/pr/2", "refs/pr/2")])
def test_hub_addresses(suffix: str, revision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model(make_model(), tmp_path / "a.safetensors")
    asked = []

    def download(repo: str, file: str, revision: str) -> str:
        asked.append((repo, file, revision))
        return str(tmp_path / "a.safetensors")

    fake_hub(monkeypatch, download)
    assert load_model(f"hf://owner/repo/deep/a.safetensors{suffix}").spec.name == "tiny"
    assert asked == [("owner/repo", "deep/a.safetensors", revision)]


def test_hub_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_kwargs: object) -> str:
        raise ConnectionError("We couldn't connect.\nCheck your connection.")

    fake_hub(monkeypatch, fail)
    assert "hf://o/r/f" in refusal(lambda: load_model("hf://o/r/f"))
    for address in ("hf://", "hf://o/r", "hf://o/r/", "hf:///r/f"):
        assert "owner/repo" in refusal(lambda address=address: load_model(address))
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingDependencyError, match="pip install"):
        load_model("hf://o/r/f")


def test_importing_it_is_cheap() -> None:
    code = "import sys, fmboost_core.files.checkpoint; print(*{'safetensors', 'huggingface_hub'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.split() == []


# --- checkpoints of the reference


@pytest.mark.parametrize(("config", "told"), REFERENCE.values(), ids=REFERENCE)
def test_the_architecture_is_derived(config: UNetConfig, told: dict[str, Any], tmp_path: Path) -> None:
    tensors = state_dict(config)
    torch.save({"state_dict": prefixed(EMA, tensors)}, tmp_path / "a.ckpt")
    model = import_reference(tmp_path / "a.ckpt", **told)
    assert model.spec.network == config
    assert model.spec.name == "a"
    assert same_weights(model, tensors)


@pytest.mark.parametrize("prefix", ["", "net.", "model.", "module.", ONLINE, EMA, "model._orig_mod.net."])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_wrappers_and_prefixes(prefix: str, wrapper: str | None, tmp_path: Path) -> None:
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
    assert "sd15 or sdxl" in refusal(lambda: import_reference(path, family="flux1"), path)


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
    expected = load_file(Path(__file__).parent / "data" / "reference_golden.safetensors")[kind]
    x, guide = (golden_values(number, expected.shape) for number in (1000, 1001))
    return (model.velocity(x, torch.tensor([0.25, 0.8]), guide) - expected).abs().max().item()


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


# --- describing and converting


def test_describe_ours(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_model(make_model(), path, torch.float16)
    told = describe(path)
    assert told["kind"] == "fmboost"
    assert told["specification"]["network"]["base"] == TINY.base
    assert told["parameters"] == sum(p.numel() for p in LatentUNet(TINY).parameters())
    assert told["dtype"] == "F16"
    assert told["bytes"] == path.stat().st_size
    assert told["derived"] == told["assumed"] == []
    path.write_bytes(path.read_bytes() + b"\0")
    refusal(lambda: describe(path), path)


def test_describe_reference(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    torch.save(lightning(state_dict(GROUP), state_dict(GROUP)), path)
    told = describe(path)
    assert told["kind"] == "reference"
    assert told["dtype"] == "float32"
    assert "multipliers" in told["derived"]
    assert {"heads", "attention", "attention_layout"} <= set(told["assumed"])
    assert len(told["sha256"]) == 64


def test_convert_keeps_what_was_told(tmp_path: Path) -> None:
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


# --- files that bring code


class Evil:
    """Calls whatever it is made with when it is unpickled."""

    def __init__(self, function: Callable[..., object], *args: object) -> None:
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return self.call


class EvilState(Evil):
    """Has its state, which runs something, set on an object of a foreign class."""

    def __reduce__(self) -> Any:
        return (Evil, (print,), {"x": Evil(*self.call[:1], *self.call[1])})


def attacks(marker: Path) -> list[object]:
    """Objects that would make the marker if anything of theirs ran."""
    command = f"touch '{marker}'"
    return [
        Evil(os.system, command),
        Evil(eval, f"open({str(marker)!r}, 'w')"),
        Evil(exec, f"open({str(marker)!r}, 'w')"),
        Evil(getattr(subprocess, "run"), ["touch", str(marker)]),  # noqa: B009 - only named, never called here
        Evil(torch.load, str(marker)),
        EvilState(os.system, command),
        {Evil(os.system, command): Evil(os.system, command)},
    ]


@pytest.mark.parametrize("number", range(7))
def test_a_malicious_pickle_is_harmless(number: int, tmp_path: Path) -> None:
    marker, path = tmp_path / "touched", tmp_path / "a.ckpt"
    evil, tensors = attacks(marker)[number], state_dict(GROUP)
    torch.save({"hyper_parameters": evil, "state_dict": tensors}, path)
    assert same_weights(load_model(path), tensors)
    torch.save({"hyper_parameters": evil, "state_dict": evil}, path)
    assert "no weights" in refusal(lambda: load_model(path), path)
    torch.save(evil, path)
    refusal(lambda: describe(path), path)
    path.write_bytes(pickle.dumps(evil))
    refusal(lambda: load_model(path), path)
    torch.save(evil, path, _use_new_zipfile_serialization=False)
    refusal(lambda: load_model(path), path)
    assert not marker.exists()


def test_the_malicious_pickles_would_have_run(tmp_path: Path) -> None:
    """The attack above is a real one."""
    marker = tmp_path / "touched"
    pickle.loads(pickle.dumps(attacks(marker)[0]))
    assert marker.exists()


def torch_zip(path: Path, pickled: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickled)


SYSTEM = b"cposix\nsystem\n"


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x02" + SYSTEM + b"(S'touch touched'\ntR.",
        b"\x80\x02(S'touch touched'\niposix\nsystem\n.",
        b"\x80\x02(" + SYSTEM + b"S'touch touched'\no.",
        b"\x80\x02" + SYSTEM + b"}S'__reduce__'\n" + SYSTEM + b"sb.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}S'read'\n" + SYSTEM + b"sb.",
        b"\x80\x02ccollections\nOrderedDict\n)R}S'items'\n" + SYSTEM + b"sb.",
        b"\x80\x02ctorch._utils\n_rebuild_parameter\n(tR.",
        b"\x80\x02ctorch\nFloatStorage\n)R.",
        b"\x80\x02" + b"(" * 100_000 + b"t" * 100_000 + b".",
        b"\x80\x02]r\xff\xff\xff\xff.",
        b"\x80\x02S'x'\nQ.",
        b"\x80\x09.",
        b"",
        b"garbage",
    ],
)
def test_hostile_opcodes(pickled: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.pt"
    torch_zip(path, pickled)
    refusal(lambda: load_model(path), path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_pickle_cannot_ask_for_more_numbers_than_it_has(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    tensors = state_dict(GROUP)
    tensors["input_blocks.0.0.weight"] = torch.zeros(1).expand(tensors["input_blocks.0.0.weight"].shape)
    torch.save(tensors, path)
    assert "input_blocks.0.0.weight is missing" in refusal(lambda: load_model(path), path)


# --- bad files


def bad_file(kind: str, path: Path) -> None:
    """Make a file of this kind at the path."""
    if kind == "directory":
        path.mkdir()
    elif kind == "pickle in a zip, compressed":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a/data.pkl", pickle.dumps({"a": "b" * 10_000}))
    elif kind == "zip of something":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("word/document.xml", "<xml/>")
    elif kind == "list":
        torch.save([1, 2], path)
    elif kind == "tensor":
        torch.save(torch.zeros(3), path)
    elif kind == "whole module":
        torch.save(LatentUNet(TINY), path)
    else:
        path.write_bytes(
            {
                "empty": b"",
                "text": b"Not a model at all, only some text that goes on for a while.",
                "brace": b"12345678{ not a header",
                "png": b"\x89PNG\r\n\x1a\n" + bytes(100),
                "jpeg": b"\xff\xd8\xff\xe0" + bytes(100),
                "html": b"<!DOCTYPE html><html>Please sign in</html>",
                "zip magic": b"PK\x03\x04" + bytes(50),
                "pickle": pickle.dumps({"state_dict": {}}),
            }[kind]
        )


KINDS = [
    "directory", "pickle in a zip, compressed", "zip of something", "list", "tensor", "whole module", "empty", "text",
    "brace", "png", "jpeg", "html", "zip magic", "pickle",
]  # fmt: skip


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
@pytest.mark.parametrize("kind", KINDS)
def test_other_files(kind: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    bad_file(kind, path)
    refusal(lambda: load_model(path), path)
    refusal(lambda: describe(path), path)


def test_missing_files(tmp_path: Path) -> None:
    refusal(lambda: load_model(tmp_path / "a.safetensors"), tmp_path / "a.safetensors")
    refusal(lambda: import_reference(tmp_path / "a.ckpt"), tmp_path / "a.ckpt")


@pytest.mark.parametrize("share", [0.001, 0.01, 0.5, 0.999])
def test_cut_files(share: float, tmp_path: Path) -> None:
    ours, theirs = tmp_path / "a.safetensors", tmp_path / "a.ckpt"
    save_model(make_model(), ours)
    torch.save(state_dict(GROUP), theirs)
    for path in (ours, theirs):
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])
        refusal(lambda path=path: load_model(path), path)


def test_a_flipped_bit_in_a_checkpoint_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    torch.save(state_dict(GROUP), path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert "damaged" in refusal(lambda: load_model(path), path)


@pytest.mark.parametrize(
    ("record", "at", "byte"), [(b"PK\x01\x02", 6, 156), (b"PK\x03\x04", 30, 0xD9)], ids=["version", "name"]
)
def test_a_zip_with_broken_headers(record: bytes, at: int, byte: int, tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    torch.save(state_dict(GROUP), path)
    content = bytearray(path.read_bytes())
    content[content.index(record) + at] = byte
    path.write_bytes(content)
    refusal(lambda: load_model(path), path)


def rewritten(path: Path, **changes: Any) -> None:
    """Our file with other metadata (metadata=...) or with tensors replaced or, by None, removed (tensors=...)."""
    save_model(make_model(), path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = {**load_file(path), **changes.get("tensors", {})}
    save_file({k: v for k, v in tensors.items() if v is not None}, path, {**metadata, **changes.get("metadata", {})})


def specification(**changes: Any) -> str:
    return json.dumps({**json.loads(make_model().spec.to_json()), **changes})


def network(**changes: Any) -> dict[str, Any]:
    return {**json.loads(make_model().spec.to_json())["network"], **changes}


SPECIFICATIONS = {
    "": "JSON",
    "{": "JSON",
    "[]": "network",
    "[" * 100_000: "specification",
    "{}": "network",
    specification(colour="red"): "colour",
    specification(format_version=2): "format_version",
    specification(family="sd9"): "family",
    specification(scale=10**400): "specification",
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
    rewritten(path, metadata={"fmboost": text})
    assert named in refusal(lambda: load_model(path), path)


def test_weights_that_do_not_work(tmp_path: Path) -> None:
    path, name = tmp_path / "a.safetensors", "out.2.weight"
    shape = make_model().network.state_dict()[name].shape
    cases = {
        "1 missing (out.2.weight)": None,
        "out.2.weight is (4, 8, 1, 1), not (4, 8, 3, 3)": torch.zeros(4, 8, 1, 1),
        "NaN or infinity in the weight out.2.weight": torch.full(shape, torch.nan),
        "infinity in the weight out.2.weight": torch.full(shape, torch.inf),
        "out.2.weight as torch.int32": torch.zeros(shape, dtype=torch.int32),
    }
    for named, tensor in cases.items():
        rewritten(path, tensors={name: tensor})
        assert named in refusal(lambda: load_model(path), path)
    rewritten(path, tensors={f"extra{i}": torch.zeros(1) for i in range(5)})
    assert "5 unexpected (extra0, extra1, extra2, and 2 more)" in refusal(lambda: load_model(path), path)


def test_nan_in_a_reference_checkpoint(tmp_path: Path) -> None:
    tensors, buffer = state_dict(GROUP), io.BytesIO()
    tensors["time_embed.0.bias"] = torch.full_like(tensors["time_embed.0.bias"], torch.nan)
    torch.save(prefixed(EMA, tensors), buffer)
    (tmp_path / "a.ckpt").write_bytes(buffer.getvalue())
    assert "time_embed.0.bias" in refusal(lambda: load_model(tmp_path / "a.ckpt"))
