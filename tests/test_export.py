"""Folders of a model for a hub: they load, and their cards say where they are from."""

import json
import re
from pathlib import Path

import huggingface_hub
import pytest
import torch
import yaml
from networks import make_model
from weight_files import refusal, same_weights, state_dict

from fmboost_core import cli, load_model
from fmboost_core.errors import FileError
from fmboost_core.files.checkpoint import read_spec, save_model
from fmboost_core.files.folder import export
from fmboost_core.files.locate import BUNDLED_MODELS, CONFIG, WEIGHTS, bundled_models
from fmboost_core.files.weight_file import sha256_of

ROOT = Path(__file__).parents[1]


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.safetensors"
    save_model(make_model(license="CC BY-ND 4.0", trained_on="nothing at all"), path)
    return path


@pytest.mark.parametrize("name", bundled_models())
def test_the_folder_of_a_bundled_model(name: str, tmp_path: Path) -> None:
    paths = export(name, tmp_path / "new" / "folder", "you/yours")
    folder = tmp_path / "new" / "folder"
    assert paths == [folder / file for file in (WEIGHTS, CONFIG, "README.md")]
    assert sorted(folder.iterdir()) == sorted(paths)
    assert sha256_of(folder / WEIGHTS) == sha256_of(BUNDLED_MODELS / f"{name}.safetensors")
    config, spec = json.loads((folder / CONFIG).read_text()), read_spec(name)
    assert config["_class_name"] == "FMBoostModel" and config["family"] == spec.family
    assert config["network"]["channels"] == spec.network.channels
    card = (folder / "README.md").read_text(encoding="utf-8")
    data = huggingface_hub.ModelCard(card).data
    assert (data.license, data.library_name, data.pipeline_tag) == ("mit", "fmboost", "image-to-image") and data.tags
    assert f"`{WEIGHTS}`:\n\n    {sha256_of(folder / WEIGHTS)}\n" in card and "models/" not in card.replace("blob/", "")
    assert card.count('"hf://you/yours"') == 2 and "your-name" not in card
    links = re.findall(r"\]\(([^)]+)\)", card)
    assert links and all(link.startswith("https://") for link in links)
    inside = [link.partition("/blob/main/")[2].partition("#")[0] for link in links if "/blob/main/" in link]
    assert inside and all((ROOT / path).is_file() for path in inside)


def test_the_folder_is_a_name_of_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model(make_model(), tmp_path / "mine.safetensors")
    export(tmp_path / "mine.safetensors", tmp_path / "folder")
    assert same_weights(load_model(tmp_path / "folder"), make_model().network.state_dict())
    asked = []

    def download(repo: str, file: str, revision: str) -> str:
        asked.append((repo, file, revision))
        return str(tmp_path / "folder" / WEIGHTS)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert load_model("hf://you/mine").spec.name == load_model("hf://you/mine@v2").spec.name == "tiny"
    assert asked == [("you/mine", WEIGHTS, "main"), ("you/mine", WEIGHTS, "v2")]
    (tmp_path / "folder" / WEIGHTS).unlink()
    assert "is a folder; name a file of weights in it" in refusal(lambda: load_model(tmp_path / "folder"))


def test_the_card_of_another_model_follows_from_its_specification(mine: Path, tmp_path: Path) -> None:
    export(mine, tmp_path / "folder")
    card = (tmp_path / "folder" / "README.md").read_text(encoding="utf-8")
    front = yaml.safe_load(card.split("---\n")[1])
    assert (front["license"], front["license_name"]) == ("other", "CC BY-ND 4.0") and "sd15" in front["tags"]
    for said in ("# tiny\n", "latents of SD1.5", "2 times as wide", "4 evaluations", "nothing at all", "your-name/t"):
        assert said in card
    assert sha256_of(tmp_path / "folder" / WEIGHTS) in card
    save_model(make_model(license="MIT"), mine)
    export(mine, tmp_path / "free")
    assert "\nlicense: mit\nlibrary_name" in (tmp_path / "free" / "README.md").read_text(encoding="utf-8")


def test_what_cannot_be_prepared_is_refused(mine: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "README.md").write_text("mine")
    for place in (tmp_path / "full", mine):
        with pytest.raises(FileError, match="is not an empty folder; name a new one"):
            export(mine, place)
    assert (tmp_path / "full" / "README.md").read_text() == "mine"
    torch.save({"state_dict": state_dict(make_model().spec.network)}, tmp_path / "their.ckpt")
    assert "`fmboost convert` makes one" in refusal(lambda: export(tmp_path / "their.ckpt", tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_the_command(mine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "folder"
    assert cli.main(["export", str(mine), str(folder), "--repo", "you/mine"]) == 0
    said = capsys.readouterr().out
    assert str(folder / WEIGHTS) in said and f"hf upload you/mine {folder}" in said
    assert '"hf://you/mine"' in (folder / "README.md").read_text(encoding="utf-8")
    assert cli.main(["export", str(mine), str(folder)]) == 2
    assert "is not an empty folder" in capsys.readouterr().err
    with pytest.raises(SystemExit) as refused:
        cli.main(["export", str(mine), str(tmp_path / "other"), "--repo", "mine"])
    assert refused.value.code == 2 and "must be OWNER/REPO, not 'mine'" in capsys.readouterr().err
