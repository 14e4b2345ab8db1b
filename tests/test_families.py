"""Latent families: one entry makes a family known everywhere, and parts of two families never meet."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from comfy_stub import VAE, Host, forget_pack, install
from networks import make_model
from PIL import Image

from fmboost_core import FAMILIES, LatentFamily, boost, load_codec, upscale_image
from fmboost_core.cli import main
from fmboost_core.codecs import load
from fmboost_core.codecs.load import save_codec
from fmboost_core.codecs.tiny import TinyVAE, tiny_codec
from fmboost_core.errors import CheckpointError, ConfigError, FMBoostWarning, LatentError
from fmboost_core.families import (
    Party,
    families_with,
    family_of_space,
    family_of_tiny_vae,
    register_family,
    require_same_family,
    titles,
)
from fmboost_core.files.checkpoint import load_model, save_model
from fmboost_core.foreign import SOUND, SPACES, VIDEO, space_of_class

TOY = LatentFamily("toy", "Toy", 3, 0.5, 0.25, webui=("is_toy",))


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model and a codec of an invented family, which is registered for the test."""
    monkeypatch.setitem(FAMILIES, "toy", TOY)
    network = make_model().spec.network
    toy_network = type(network)(**{**vars(network), "channels": 3})
    save_model(
        make_model(toy_network, family="toy", latent_factor=0.5, latent_shift=0.25), tmp_path / "toy.safetensors"
    )
    torch.manual_seed(0)
    codec = tiny_codec(channels=3, width=16, blocks=1, stem=4)
    codec.family = "toy"
    save_codec(codec, tmp_path / "toy-codec.safetensors", license="MIT", trained_on="nothing")
    Image.fromarray(np.full((16, 24, 3), 90, np.uint8)).save(tmp_path / "small.png")
    return tmp_path


# --- an invented family, without another line of code


def test_the_command_line_lists_and_runs_an_invented_family(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, codec = str(toy / "toy.safetensors"), str(toy / "toy-codec.safetensors")
    assert main(["info", model]) == 0
    assert "family                    toy" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["convert", "--help"])
    assert "toy" in capsys.readouterr().out
    large = toy / "large.png"
    assert main(["upscale", str(toy / "small.png"), str(large), "--model", model, "--codec", codec]) == 0
    assert Image.open(large).size == (48, 32)
    assert main(["upscale", str(toy / "small.png"), str(large), "--model", model]) == 2
    assert "no built-in codec for Toy latents" in capsys.readouterr().err


@pytest.fixture
def host(toy: Path) -> Iterator[Host]:
    """ComfyUI's stub with the invented family registered in the pack's own copy of the core."""
    with pytest.MonkeyPatch.context() as patch:
        host = install(patch, toy)
        families = host.core.FAMILIES
        patch.setitem(families, "toy", host.core.LatentFamily(**vars(TOY)))
        (toy / "models/fmboost").mkdir(parents=True, exist_ok=True)
        (toy / "toy.safetensors").rename(toy / "models/fmboost/toy.safetensors")
        yield host
    forget_pack()


class ToyVAE(VAE):
    """Three raw channels: the image, reduced by 8."""

    def __init__(self) -> None:
        super().__init__()
        self.latent_channels = 3

    def _encode(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(pixels.movedim(-1, 1), 8)

    def _decode(self, samples: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.interpolate(samples, scale_factor=8).movedim(1, -1)


def test_comfyui_lists_and_runs_an_invented_family(host: Host) -> None:
    def widget(node_id: str, name: str) -> list[str]:
        (found,) = (i for i in host.nodes[node_id].define_schema().inputs if i.id == name)
        return list(found.options)

    assert "toy" in widget("FMBoostNoiseAugment", "family")
    assert "toy.safetensors" in widget("FMBoostLoadCFM", "model")
    cfm = host.nodes["FMBoostLoadCFM"].execute(model="toy.safetensors", dtype="fp32").args[0]
    latent = {"samples": torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))}
    large = host.run("FMBoostUpscale", latent=latent, vae=ToyVAE(), cfm=cfm).args[0]["samples"]
    assert large.shape == (1, 3, 8, 8) and torch.isfinite(large).all()
    with pytest.raises(host.core.ConfigError, match="no built-in codec for Toy latents; connect a VAE"):
        host.run("FMBoostUpscaleImage", image=torch.rand(1, 16, 16, 3), cfm=cfm)


def test_the_page_learns_of_an_invented_familys_model(host: Host) -> None:
    facts = asyncio.run(host.routes["/fmboost/models"](None))
    assert facts["toy.safetensors"] == {"scale": 2.0, "nfe": 4, "noise_step": 400, "strength": 1.0, "guide": "psu"}


# --- refusals


def test_parts_of_two_families_are_refused_by_what_is_known() -> None:
    model, codec = Party("the model a", "sd15", 4), Party("the codec b", "sdxl", 4, "give another codec")
    with pytest.raises(LatentError) as refused:
        require_same_family(model, codec)
    assert str(refused.value) == (
        "The model a is for SD1.5 latents (4 channels), but the codec b is for SDXL latents (4 channels); give another "
        "codec."
    )
    require_same_family(model, Party("the latent", None, 4), Party("the VAE"))
    for other in (Party("the latent", None, 16), Party("the latent", "flux1"), Party("the latent", "sdxl", 4)):
        with pytest.raises(LatentError, match="one latent family for both"):
            require_same_family(model, Party("the VAE", None, 4), other)
    with pytest.raises(LatentError, match=r"latent has 4 channels \(SD1.5 or SDXL\), but the VAE has 16"):
        require_same_family(Party("the latent", None, 4), Party("the VAE", None, 16))


def test_the_odd_one_is_named() -> None:
    """Of three, the one that the two others outvote, with what to do about it; what only seems so is warned of."""
    model, vae = Party("the model a", "sd15", 4, "take another model"), Party("the VAE", "sdxl", 4, "take another VAE")
    for latent, sentence in [
        (Party("the latent", "sd15", 4), "The model a and the latent are for SD1.5 latents (4 channels), but the VAE "
         "is for SDXL latents (4 channels); take another VAE."),
        (Party("the latent", None, 4, seems="sdxl"), "The VAE is for SDXL latents (4 channels), as the latent seems to "
         "be, but the model a is for SD1.5 latents (4 channels); take another model."),
        (Party("the latent", None, 4), "The model a is for SD1.5 latents (4 channels), but the VAE is for SDXL latents "
         "(4 channels); take another VAE."),
    ]:  # fmt: skip
        with pytest.raises(LatentError) as refused:
            require_same_family(model, latent, vae)
        assert str(refused.value) == sentence
    strange = Party("the latent", None, 4, "take another latent", "sdxl")
    with pytest.warns(FMBoostWarning) as warned:
        require_same_family(model, strange, replace(vae, family="sd15"))
    assert [str(warning.message) for warning in warned] == [
        "The model a and the VAE are for SD1.5 latents (4 channels), but the latent looks like one of SDXL; expect "
        "wrong colours or patterns, or take another latent."
    ]


def test_a_foreign_space_is_of_no_family_of_as_many_channels() -> None:
    model, cascade = Party("the model a", "flux1"), Party("the VAE", None, 16, "take another", foreign="Stable Cascade")
    with pytest.raises(LatentError) as refused:
        require_same_family(model, cascade)
    assert str(refused.value) == (
        "The model a is for FLUX.1 latents (16 channels), but the VAE is for Stable Cascade latents (16 channels); "
        "take another."
    )
    require_same_family(cascade, replace(cascade, what="the latent"))


def test_what_is_no_codec_is_refused_in_a_sentence() -> None:
    with pytest.raises(ConfigError, match="Tensor lacks channels, downscale_factor, encode and decode; see `Codec`"):
        boost(torch.zeros(1, 4, 4, 4), make_model(), torch.zeros(1))  # type: ignore[arg-type]


def test_the_core_refuses_a_codec_and_a_latent_of_another_family(codec: TinyVAE) -> None:
    latent, image = torch.zeros(1, 4, 4, 4), torch.zeros(1, 3, 16, 16)
    xl = make_model(family="sdxl", latent_factor=0.13025)
    builtin = load_codec("builtin")
    for call in (lambda: boost(latent, xl, builtin), lambda: upscale_image(image, xl, builtin)):
        with pytest.raises(LatentError, match=r"for SDXL latents .*but the codec builtin is for SD1.5"):
            call()
    with pytest.raises(LatentError, match=r"for SD1.5 latents .*latent has 16 channels \(SD3, FLUX.1 or Stable Casc"):
        boost(torch.zeros(1, 16, 4, 4), make_model(), builtin)
    codec.family = None  # a codec that does not tell is taken at its channels
    assert boost(latent, xl, codec, nfe=1).shape == (1, 4, 8, 8)


def test_the_command_line_refuses_a_codec_of_another_family(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    upscale = ["upscale", str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    assert main([*upscale, "--model", "sd15-x2", "--codec", str(shared / "taesd/taesdxl")]) == 2
    assert "for SD1.5 latents (4 channels), but the codec taesdxl is for SDXL" in capsys.readouterr().err
    assert not (tmp_path / "b.png").exists()
    assert main([*upscale, "--model", "sdxl-x2"]) == 0, "by the built-in codec of the model's own family"
    with Image.open(tmp_path / "b.png") as large:
        assert large.size == (32, 32)
    capsys.readouterr()
    monkeypatch.setattr(load, "BUNDLED_CODECS", tmp_path)
    assert main(["upscale", str(tmp_path / "a.png"), str(tmp_path / "c.png"), "--model", "sdxl-x2"]) == 2
    assert "no built-in codec for SDXL latents; give a codec for SDXL, such as the public tiny VAE taesdxl" in (
        capsys.readouterr().err
    )


def test_comfyui_refuses_a_vae_that_tells_another_family(host: Host) -> None:
    cfm = host.nodes["FMBoostLoadCFM"].execute(model="sd15-x2", dtype="fp32").args[0]
    latent, vae = {"samples": torch.zeros(1, 4, 4, 4)}, VAE()
    vae.first_stage_model = type("TAESD", (), {"vae_scale": torch.tensor(0.13025), "vae_shift": torch.tensor(0.0)})()
    with pytest.raises(
        host.core.LatentError, match=r"VAE is for SDXL latents .*connect the VAE of the latent's family"
    ):
        host.run("FMBoostUpscale", latent=latent, vae=vae, cfm=cfm)
    vae.first_stage_model.vae_scale = torch.tensor(0.18215)
    host.run("FMBoostUpscale", latent=latent, vae=vae, cfm=cfm, nfe=1)


# --- what tells a family


def test_a_codec_knows_its_family(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for prefix, family in (("taesd", "sd15"), ("taesdxl", "sdxl"), ("taesd3", "sd3"), ("taef1", "flux1")):
        assert load_codec(shared / "taesd" / prefix).family == family
    assert load_codec("builtin").family == "sd15"
    with pytest.raises(LatentError, match="is for SDXL latents"):
        load_codec(shared / "taesd/taesdxl", "sd15")
    for family in filter(load.has_builtin_codec, FAMILIES):
        builtin = load_codec("builtin", family)
        assert (builtin.family, builtin.channels) == (family, FAMILIES[family].channels)
    monkeypatch.setattr(load, "BUNDLED_CODECS", tmp_path)
    with pytest.raises(CheckpointError, match=r"no built-in codec for FLUX.1 latents; .*taef1"):
        load_codec("builtin", "flux1")
    with pytest.raises(ConfigError, match="family must be one of"):
        load_codec("builtin", "sd9")


def test_a_codecs_file_keeps_its_family(toy: Path) -> None:
    assert load_codec(toy / "toy-codec.safetensors").family == "toy"
    assert load_model(toy / "toy.safetensors").spec.family == "toy"


def test_names_and_numbers_of_families() -> None:
    assert families_with(4) == "SD1.5 or SDXL" and families_with(7) == "no known family"
    assert families_with(128) == "FLUX.2" and families_with(16) == "SD3, FLUX.1 or Stable Cascade"
    assert families_with(128, VIDEO) == "LTX Video"
    assert families_with(12) == "Mochi" and families_with(12, SOUND) == "no known family"
    classes = [name for space in SPACES for name in space.classes]
    assert len(classes) == len(set(classes)) and not {f.comfyui for f in FAMILIES.values()} & set(classes)
    assert [getattr(space_of_class(name), "title", None) for name in ("Wan21", "StageA", "SD15")] == [
        "Qwen-Image/Wan 2.1", "Stable Cascade's stage B", None,
    ]  # fmt: skip
    assert titles(["sd15", "sdxl", "sd3"]) == "SD1.5, SDXL and SD3"
    assert family_of_tiny_vae("TAESDXL") == "sdxl" and family_of_tiny_vae("mine") is None
    assert family_of_space(16, 0.3611, 0.1159) == "flux1" and family_of_space(4, 0.3611, 0.1159) is None
    raw = torch.randn(2, 16, 3, 3)
    assert torch.allclose(FAMILIES["sd3"].to_raw(FAMILIES["sd3"].to_scaled(raw)), raw, atol=1e-6)
    assert torch.allclose(FAMILIES["sd3"].to_scaled(raw), (raw - 0.0609) * 1.5305)
    with pytest.raises(ConfigError, match="another latent family named 'sd15'"):
        register_family(LatentFamily("sd15", "Other", 8, 1.0))
    with pytest.raises(ConfigError, match="scaling_factor must be above 0"):
        LatentFamily("bad", "Bad", 4, 0.0)
