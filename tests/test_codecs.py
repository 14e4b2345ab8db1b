"""Codecs by name: ours and TAESD's as ever, a real autoencoder's latents scaled as its configuration says."""

import json
import sys
from pathlib import Path

import pytest
import torch
from networks import randomised
from safetensors.torch import load_file, save_file

from fmboost_core.codecs import kl as codecs
from fmboost_core.codecs.kl import KLCodec, open_codec
from fmboost_core.codecs.tiny import TinyVAE
from fmboost_core.errors import CheckpointError, FMBoostError, LatentError, MissingDependencyError

diffusers = pytest.importorskip("diffusers")

CONFIG, BUNDLED_MODELS = "config.json", "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline's folder whose `vae` is a tiny random AutoencoderKL of factor 4."""
    autoencoder = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 8),
        norm_num_groups=4,
        latent_channels=6,
        scaling_factor=0.5,
        shift_factor=0.25,
    )
    folder = tmp_path_factory.mktemp("pipeline")
    randomised(autoencoder).save_pretrained(folder / "vae")
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy of the autoencoder's folder that a test may damage."""
    for name in (CONFIG, BUNDLED_MODELS):
        (tmp_path / name).write_bytes((saved / "vae" / name).read_bytes())
    return tmp_path


def images(*sides: int) -> torch.Tensor:
    return torch.rand((1, 3, *sides), generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_latents_are_scaled_as_the_configuration_says(saved: Path) -> None:
    codec = open_codec(f"diffusers:{saved}")
    assert isinstance(codec, KLCodec) and (codec.channels, codec.downscale_factor) == (6, 4)
    reference = diffusers.AutoencoderKL.from_pretrained(saved / "vae")
    x = images(24, 40)
    with torch.no_grad():
        raw = reference.encode(x).latent_dist
        latent, decoded = codec.encode(x), reference.decode(raw.mean).sample
    assert latent.shape == (1, 6, 6, 10) and torch.equal(latent, (raw.mean - 0.25) * 0.5)
    assert not torch.equal(raw.sample(), raw.mean) and torch.equal(codec.encode(x), latent)
    assert torch.allclose(codec.decode(latent), decoded, atol=1e-5) and decoded.shape == x.shape


def test_without_a_shift_there_is_none(folder: Path) -> None:
    config = json.loads((folder / CONFIG).read_text())
    x, shifted = images(16, 16), open_codec(f"diffusers:{folder}")
    (folder / CONFIG).write_text(json.dumps({**config, "shift_factor": None}))
    plain = open_codec(f"diffusers:{folder}")
    assert torch.allclose(plain.encode(x), shifted.encode(x) + 0.25 * 0.5, atol=1e-6)
    assert torch.allclose(plain.decode(plain.encode(x)), shifted.decode(shifted.encode(x)), atol=1e-5)


def test_it_moves_to_another_type_and_gives_back_the_inputs(saved: Path) -> None:
    codec = open_codec(f"diffusers:{saved}")
    exact = codec.encode(images(16, 16))
    codec = codec.to(torch.bfloat16)
    latent = codec.encode(images(16, 16))
    assert latent.dtype == torch.float32 and torch.allclose(latent, exact, atol=0.05, rtol=0.05)
    assert codec.decode(latent).dtype == torch.float32
    assert not any(parameter.requires_grad for parameter in codec.parameters())


def test_large_pictures_go_in_tiles(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = open_codec(f"diffusers:{saved}")
    monkeypatch.setattr(codecs, "TILE", 16)
    tiled = open_codec(f"diffusers:{saved}")
    small, large = images(64, 64), images(132, 100)
    assert torch.equal(tiled.encode(small), whole.encode(small))
    latent = tiled.encode(large)
    assert latent.shape == (1, 6, 33, 25) and not torch.equal(latent, whole.encode(large))
    assert tiled.decode(latent).shape == large.shape


def test_sides_must_fit(saved: Path) -> None:
    with pytest.raises(LatentError, match="multiples of 4, but got 18x16"):
        open_codec(f"diffusers:{saved}").encode(images(16, 18))


def test_other_names_are_the_cores() -> None:
    assert isinstance(open_codec("builtin"), TinyVAE)
    with pytest.raises(CheckpointError, match=r"nowhere_encoder\.safetensors does not exist"):
        open_codec("nowhere")


def refused(text: str) -> str:
    with pytest.raises(FMBoostError) as error:
        open_codec(text)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "config, message",
    [
        ("{", "is no configuration"),
        ("[]", "is no configuration"),
        (
            '{"_class_name": "UNet2DConditionModel"}',
            "is of a UNet2DConditionModel of 3 channels; an",
        ),
        ('{"_class_name": "AutoencoderKL", "in_channels": 4}', "of 4 channels"),
        ('{"_class_name": "AutoencoderKL", "latents_mean": [0.1]}', "each channel of the latent by itself"),
        ('{"_class_name": "AutoencoderKL"}', "cannot be loaded"),
    ],
)
def test_foreign_configurations_are_refused(folder: Path, config: str, message: str) -> None:
    (folder / CONFIG).write_text(config)
    said = refused(f"diffusers:{folder}")
    assert message in said and str(folder) in said


def test_what_is_no_folder_of_an_autoencoder_is_refused(folder: Path) -> None:
    (folder / "empty").mkdir()
    assert "has neither config.json nor vae/config.json" in refused(f"diffusers:{folder / 'empty'}")
    said = refused("diffusers:stabilityai/sd-vae-ft-mse")
    assert "no folder stabilityai/sd-vae-ft-mse" in said and "diffusers:hf://owner/repo" in said
    assert "diffusers:hf://owner/repo" in refused("hf://owner/repo")
    assert "not of the form" in refused("diffusers:hf://owner")


def test_damaged_weights_are_refused(folder: Path) -> None:
    weights = load_file(folder / BUNDLED_MODELS)
    save_file({k: v for k, v in weights.items() if k != "decoder.conv_in.weight"}, folder / BUNDLED_MODELS)
    assert "decoder.conv_in.weight" in refused(f"diffusers:{folder}")
    save_file({**weights, "decoder.conv_in.weight": weights["decoder.conv_in.weight"] / 0}, folder / BUNDLED_MODELS)
    assert "NaN or infinity" in refused(f"diffusers:{folder}")
    (folder / BUNDLED_MODELS).write_bytes(b"broken")
    assert "cannot be loaded" in refused(f"diffusers:{folder}")
    (folder / BUNDLED_MODELS).rename(folder / "diffusion_pytorch_model.bin")
    assert "cannot be loaded" in refused(f"diffusers:{folder}")


def test_the_hub_gives_configuration_and_weights_alone(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: list[object] = []

    def snapshot(repo: str, *, revision: str, allow_patterns: list[str]) -> str:
        asked.append((repo, revision, allow_patterns))
        return str(saved)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert open_codec("diffusers:hf://owner/repo").channels == 6
    assert open_codec("diffusers:hf://owner/repo/vae@v2").channels == 6
    assert asked == [
        ("owner/repo", "main", [CONFIG, BUNDLED_MODELS, f"vae/{CONFIG}", f"vae/{BUNDLED_MODELS}"]),
        ("owner/repo", "v2", [f"vae/{CONFIG}", f"vae/{BUNDLED_MODELS}"]),
    ]

    def offline(*_: object, **__: object) -> str:
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    assert "could not be fetched (ConnectionError: no network)" in refused("diffusers:hf://owner/repo")


def test_without_diffusers_it_says_what_to_install(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(MissingDependencyError, match="pip install diffusers"):
        open_codec(f"diffusers:{saved}")
