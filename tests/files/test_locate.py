"""Bundled names, paths and hf:// addresses."""

import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest
from networks import make_model
from weight_files import refusal

from fmboost_core.errors import MissingDependencyError
from fmboost_core.files import locate
from fmboost_core.files.checkpoint import load_model, save_model
from fmboost_core.files.locate import bundled_models


def test_bundled_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locate, "BUNDLED_MODELS", tmp_path)
    save_model(make_model(license="CC0"), tmp_path / "small.safetensors")
    (tmp_path / "pointer.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    assert bundled_models() == ["pointer", "small"]
    assert load_model("small").spec.license == "CC0"
    assert "git lfs pull" in refusal(lambda: load_model("pointer"))


def test_bundled_models_are_in_the_families_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one is the default of ComfyUI's Load CFM: not the one whose family comes first in the alphabet."""
    monkeypatch.setattr(locate, "BUNDLED_MODELS", tmp_path)
    for name in ("flux1-x2", "own", "sd15-x4", "sd15-x2", "sd3-x2", "sdxl-x2"):
        (tmp_path / f"{name}.safetensors").touch()
    assert bundled_models() == ["sd15-x2", "sd15-x4", "sdxl-x2", "sd3-x2", "flux1-x2", "own"]


@pytest.mark.parametrize("name", ["large", "../sd15-x2", "x" * 300, "a\0b"])
def test_an_unknown_name_lists_the_bundled_ones(name: str) -> None:
    message = refusal(lambda: load_model(name))
    assert "sd15-x2" in message
    assert "path must exist" in message


def fake_hub(monkeypatch: pytest.MonkeyPatch, download: Callable[..., str]) -> None:
    hub = types.ModuleType("huggingface_hub")
    hub.hf_hub_download = download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)


@pytest.mark.parametrize(("suffix", "revision"), [("", "main"), ("@refs/pr/2", "refs/pr/2")])
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
    for address in ("hf://", "hf://o", "hf://o/r/", "hf:///r/f"):
        assert "owner/repo" in refusal(lambda address=address: load_model(address))
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingDependencyError, match="pip install"):
        load_model("hf://o/r/f")
