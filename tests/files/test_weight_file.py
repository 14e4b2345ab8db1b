"""Files of named tensors: written whole or not at all, and refused in one sentence if they do not fit."""

from pathlib import Path

import pytest
import torch
from networks import make_model
from torch import nn
from weight_files import refusal, rewritten

from fmboost_core.files.checkpoint import load_model, save_model
from fmboost_core.files.weight_file import open_weights, save_weights


def test_writing_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    save_weights(path, nn.Linear(2, 2).state_dict(), {}, None)
    before = path.read_bytes()

    def cut(partial: Path, _content: bytes) -> None:
        with partial.open("wb") as file:
            file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_bytes", cut)
    assert "No space left" in refusal(lambda: save_weights(path, nn.Linear(2, 2).state_dict(), {}, None), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_written_file_has_the_mode_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    save_weights(tmp_path / "a.safetensors", nn.Linear(2, 2).state_dict(), {}, None)
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_writing_refuses_other_places_and_values(tmp_path: Path) -> None:
    large = nn.Linear(2, 2)
    nn.init.constant_(large.bias, 1e6)
    (tmp_path / "none").touch()
    for name, dtype in (("a.ckpt", None), ("none/a.safetensors", None), ("a.safetensors", torch.float16)):
        message = refusal(
            lambda name=name, dtype=dtype: save_weights(tmp_path / name, large.state_dict(), {}, dtype), tmp_path
        )
        assert ("the weight bias" in message) == (dtype is torch.float16)
    assert list(tmp_path.iterdir()) == [tmp_path / "none"]


OTHER_FILES = {
    "empty": b"",
    "text": b"Not a model at all, only some text that goes on for a while.",
    "html": b"<!DOCTYPE html><html>Please sign in</html>",
    "brace": b"12345678{ not a header",
    "zip": b"PK\x03\x04" + bytes(50),
}


@pytest.mark.parametrize("content", OTHER_FILES.values(), ids=OTHER_FILES)
@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_other_files_are_refused(content: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    refusal(lambda: load_model(path), path)


def test_missing_files_and_directories_are_refused(tmp_path: Path) -> None:
    assert "is a folder" in refusal(lambda: load_model(tmp_path), tmp_path)
    with pytest.raises(ValueError, match="does not exist"), open_weights(tmp_path / "a.safetensors"):
        pass


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_cut_files_are_refused(share: float, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_model(make_model(), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refusal(lambda: load_model(path), path)


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
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
        rewritten(path, {name: tensor}, {})
        assert named in refusal(lambda: load_model(path), path)
    rewritten(path, {f"extra{i}": torch.zeros(1) for i in range(5)}, {})
    assert "5 unexpected (extra0, extra1, extra2, and 2 more)" in refusal(lambda: load_model(path), path)


def test_weights_are_read_while_a_host_has_its_own_way_to_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """AUTOMATIC1111 puts its own in place of the modules' methods while it loads a checkpoint, or for good."""
    model = make_model()
    save_model(model, tmp_path / "model.safetensors")

    def load_state_dict(self: nn.Module, weights: object, strict: bool = True) -> None:
        raise AssertionError("this is the host's")

    monkeypatch.setattr(nn.Module, "load_state_dict", load_state_dict)
    found = load_model(tmp_path / "model.safetensors").network
    for name, value in model.network.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name
