"""Codecs: files in and out, refusals, and, where the shared tiny VAEs are, the real latent space."""

import sys
import types
from pathlib import Path

import pytest
import torch
from networks import randomised
from safetensors.torch import save_file

from fmboost_core.codecs.kl import open_codec
from fmboost_core.codecs.load import load_codec, save_codec
from fmboost_core.codecs.tiny import TinyVAE, taesd, tiny_codec
from fmboost_core.errors import CheckpointError, LatentError
from fmboost_core.families import FAMILIES
from fmboost_core.imaging.read import read_picture


def save_pair(codec: TinyVAE, prefix: Path) -> None:
    for part in ("encoder", "decoder"):
        weights = {k: v.clone() for k, v in getattr(codec, part).state_dict().items()}
        save_file(weights, prefix.with_name(f"{prefix.name}_{part}.safetensors"))


def test_our_files_come_back_whole(tmp_path: Path) -> None:
    codec = randomised(tiny_codec(channels=16, width=24, blocks=2, stem=4))
    save_codec(codec, tmp_path / "c.safetensors", license="MIT", trained_on="nothing")
    back = load_codec(tmp_path / "c.safetensors")
    assert (back.channels, back.downscale_factor) == (16, 8)
    for a, b in zip(codec.parameters(), back.parameters(), strict=True):
        assert torch.equal(a.half().float(), b)


def test_a_pair_of_taesd_files_is_a_codec(tmp_path: Path) -> None:
    codec = randomised(taesd(16), std=0.02)
    save_pair(codec, tmp_path / "taef1")
    back = load_codec(str(tmp_path / "taef1"))
    x = torch.rand(1, 3, 16, 24) * 2 - 1
    assert back.channels == 16 and back.encode(x).shape == (1, 16, 2, 3)
    assert torch.allclose(back.encode(x), codec.eval().encode(x), atol=1e-4)


def test_codecs_on_the_hub(tmp_path: Path, codec: TinyVAE, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of ours and a public pair, as the README promises for hf:// addresses; nothing else asks the hub."""
    asked = []

    def download(repo: str, file: str, revision: str) -> str:
        asked.append((repo, file, revision))
        return str(tmp_path / Path(file).name)

    hub = types.ModuleType("huggingface_hub")
    hub.hf_hub_download = download
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    save_codec(codec, tmp_path / "own.safetensors", license="MIT", trained_on="nothing")
    pair = taesd(4)
    for name in ("encoder", "decoder"):
        save_file(getattr(pair, name).state_dict(), tmp_path / f"taesdxl_{name}.safetensors")
    for name in ("builtin", str(tmp_path / "own.safetensors"), str(tmp_path / "taesdxl")):
        load_codec(name)
    assert not asked
    own = load_codec("hf://owner/repo/deep/own.safetensors@v2")
    assert own.name == "own" and asked == [("owner/repo", "deep/own.safetensors", "v2")]
    asked.clear()
    found = load_codec("hf://owner/repo/taesdxl@refs/pr/1")
    assert (found.name, found.family) == ("taesdxl", "sdxl") and open_codec("hf://owner/repo/taesdxl").family == "sdxl"
    files = ("taesdxl_encoder.safetensors", "taesdxl_decoder.safetensors")
    assert asked == [("owner/repo", file, revision) for revision in ("refs/pr/1", "main") for file in files]


def test_the_builtin_codec_is_small_and_needs_nothing_else() -> None:
    codec = load_codec("builtin")
    assert (codec.channels, codec.downscale_factor) == (4, 8)
    assert sum(p.numel() for p in codec.parameters()) <= 3e6
    assert not any(p.requires_grad for p in codec.parameters()) and not codec.training


def test_refusals_name_the_file(tmp_path: Path, codec: TinyVAE) -> None:
    def says(name: Path | str) -> str:
        with pytest.raises(CheckpointError) as refused:
            load_codec(name)
        assert "\n" not in str(refused.value)
        return str(refused.value)

    assert "taesd_encoder.safetensors does not exist" in says(tmp_path / "taesd")
    assert "does not exist" in says(tmp_path / "c.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    assert "no codec of FMBoost" in says(tmp_path / "x.safetensors")
    flat = {"encoder.1.weight": torch.zeros(1), "encoder.8.weight": torch.zeros(1)}
    save_file(flat, tmp_path / "flat.safetensors", {"fmboost_codec": "{}"})
    assert "misshapen" in says(tmp_path / "flat.safetensors")
    save_pair(randomised(taesd(4)), tmp_path / "cut")
    whole = (tmp_path / "cut_decoder.safetensors").read_bytes()
    (tmp_path / "cut_decoder.safetensors").write_bytes(whole[: len(whole) // 2])
    assert "cut_decoder.safetensors is damaged" in says(tmp_path / "cut")
    save_file({"y": torch.zeros(1)}, tmp_path / "cut_decoder.safetensors")
    assert "1.weight is missing" in says(tmp_path / "cut")
    save_codec(codec, tmp_path / "part.safetensors", license="MIT", trained_on="nothing")
    with pytest.raises(CheckpointError, match="NaN"):
        save_codec(randomised(codec, std=float("nan")), tmp_path / "part.safetensors", license="", trained_on="")
    assert load_codec(tmp_path / "part.safetensors").channels == 4


def test_odd_pictures_are_refused(codec: TinyVAE) -> None:
    for size in ((8, 9), (0, 8), (7, 8)):
        with pytest.raises(LatentError, match="multiples of 8"):
            codec.encode(torch.zeros(1, 3, *size))


def test_types_and_batches(codec: TinyVAE) -> None:
    latents = torch.randn(3, 4, 5, 6)
    together = codec.decode(latents)
    assert torch.allclose(together, torch.cat([codec.decode(z) for z in latents.split(1)]), atol=1e-5)
    assert codec.decode(latents.half()).dtype == torch.float16


@torch.no_grad()
@pytest.mark.parametrize("family", ["sd15", "sd3", "flux1"])
def test_a_builtin_codec_lives_in_its_family_s_space(family: str, shared: Path) -> None:
    """On four validation photographs: the mean PSNR of each way round, against the public tiny VAE's own round trip."""
    teacher, ours = load_codec(shared / "taesd" / FAMILIES[family].tiny_vae), load_codec("builtin", family)
    ways = {"theirs": (teacher, teacher), "ours": (ours, ours), "out": (teacher, ours), "in": (ours, teacher)}
    sums = dict.fromkeys(ways, 0.0)
    for path in sorted((shared / "photos/val").glob("*.jpg"))[::12]:
        x = read_picture(path).rgb
        top, left = (x.shape[-2] - 256) // 2, (x.shape[-1] - 256) // 2
        x = x[..., top : top + 256, left : left + 256]
        for way, (encoder, decoder) in ways.items():
            error = (decoder.decode(encoder.encode(x)).clamp(-1, 1) - x) / 2
            sums[way] -= 10 * float(error.square().mean().log10()) / 4
    assert sums["ours"] > sums["theirs"] - 2
    assert sums["out"] > sums["theirs"] - 2
    assert sums["in"] > sums["theirs"] - 3.5
