"""Shards of latents: their format, encoding, and the crops that are drawn from them."""

import json
import random
import resource
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import TINY, make_model
from PIL import Image
from torch import Tensor

from fmboost_core import boost
from fmboost_core.cli.processes import share
from fmboost_core.codecs.tiny import TinyVAE
from fmboost_core.errors import (
    ConfigError,
    FileError,
    FMBoostError,
    FMBoostWarning,
    LatentError,
)
from fmboost_core.imaging.resample import resize
from fmboost_core.networks.conditioning import GUIDE_KINDS
from fmboost_core.sampling.guide import pixel_upsample
from fmboost_core.sampling.restore import recoloured, restored
from fmboost_core.training.data import encode
from fmboost_core.training.data.crops import CropSampler, ImageCrops, LatentCrops, PhotoCrops
from fmboost_core.training.data.degrade import Degradation
from fmboost_core.training.data.encode import ShardMaker, disturbed, reduced
from fmboost_core.training.data.encoding import Encoding
from fmboost_core.training.data.latents import LatentSet, load_shards
from fmboost_core.training.data.photos import View, find_photos, load_view, plan_views
from fmboost_core.training.data.shards import Sample, read_shard, write_shard


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i, size in enumerate(((80, 64), (100, 70), (64, 64))):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        coarse.resize(size, Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "SHARD_VIEWS", 2)


@pytest.fixture
def shards(photos: Path, codec: TinyVAE, tmp_path: Path) -> Path:
    return made(photos, codec, tmp_path / "latents").out


def made(photos: Path, codec: TinyVAE, out: Path, how: Encoding | None = None, **others: object) -> ShardMaker:
    maker = ShardMaker(plan_views(find_photos([photos])), how or Encoding(), codec, out, **others)
    maker.make(maker.shards)
    return maker


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def arrays(count: int = 3, empty: bool = False) -> list[Sample]:
    rng = np.random.default_rng(0)
    return [
        Sample(
            f"{i:08d}",
            {"scale": 2, "view": {"path": f"ü{i}.png"}},
            {name: rng.normal(size=(4, 6, 8)).astype(np.float16) * (not empty) for name in ("high", "low", "latent")},
        )
        for i in range(count)
    ]


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """No file can grow beyond so many bytes: the system refuses it, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# --- the format


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.tar", arrays())
    for before, after in zip(arrays(), read_shard(tmp_path / "a.tar"), strict=True):
        assert (before.key, before.facts, list(before.arrays)) == (after.key, after.facts, list(after.arrays))
        for name, array in before.arrays.items():
            assert array.dtype == after.arrays[name].dtype and np.array_equal(array, after.arrays[name])
    write_shard(tmp_path / "b.tar", arrays())
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_webdataset_s_own_reader_reads_a_shard(shards: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    (path,) = shards.glob("*.tar")
    theirs = list(webdataset.WebDataset(str(path), shardshuffle=False).decode())
    ours = read_shard(path)
    assert [sample["__key__"] for sample in theirs] == [sample.key for sample in ours] and len(ours) == 6
    for their, our in zip(theirs, ours, strict=True):
        assert their["json"] == our.facts
        for name in ("high", "low", "latent", "image"):
            assert np.array_equal(their[f"{name}.npy"], our.arrays[name]) and our.arrays[name].dtype == np.float16


@pytest.mark.parametrize("empty", [False, True])
def test_a_cut_shard_is_never_read(empty: bool, tmp_path: Path) -> None:
    """Also where a member ends, and where all before the cut is zeros, as the end of a tar is."""
    path = tmp_path / "cut.tar"
    write_shard(path, arrays(empty=empty))
    whole = path.read_bytes()
    with tarfile.open(path) as tar:
        ends = [member.offset for member in tar] + [member.offset_data for member in tar]
        last = tar.getmembers()[-1]
    ends += [-(-(last.offset_data + last.size) // 512) * 512 + more for more in (0, 512, 1023, 1024)]
    cuts = {*random.Random(0).sample(range(len(whole)), 40), 0, 1, 512, 1024, len(whole) - 1, len(whole) - 512, *ends}
    for cut in cuts:
        path.write_bytes(whole[:cut])
        with pytest.raises(ConfigError, match=r"cut\.tar is no whole shard .*encode again"):
            read_shard(path)
    path.write_bytes(whole)
    assert len(read_shard(path)) == 3


def test_a_damaged_shard_is_a_sentence_or_reads_as_arrays(tmp_path: Path) -> None:
    path, dice = tmp_path / "bad.tar", random.Random(0)
    write_shard(path, arrays())
    whole, refused = path.read_bytes(), 0
    for place in [*dice.sample(range(len(whole)), 100), *range(0, 700, 7)]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            read_shard(path)
        except ConfigError as error:
            assert "bad.tar" in str(error)
            refused += 1
    assert refused > 50


def test_a_damaged_header_loses_no_sample_silently(tmp_path: Path) -> None:
    """tarfile takes the first member that it cannot read for the end."""
    path = tmp_path / "bad.tar"
    write_shard(path, arrays())
    whole = path.read_bytes()
    with tarfile.open(path) as tar:
        headers = [member.offset for member in tar]
    for header in headers:
        path.write_bytes(whole[:header] + b"?" + whole[header + 1 :])
        with pytest.raises(ConfigError, match=r"bad\.tar is no whole shard"):
            read_shard(path)


def test_foreign_tars_are_sentences(tmp_path: Path, shards: Path) -> None:
    folder = tmp_path / "foreign"
    folder.mkdir()
    (tmp_path / "note.txt").write_text("hello")
    with tarfile.open(folder / "a.tar", "w") as tar:
        tar.add(tmp_path / "note.txt", "0.txt")
    with pytest.raises(ConfigError, match=r"no latents in .*foreign"):
        load_shards(folder)
    high = np.zeros((4, 8, 8), np.float16)
    for facts, held, words in (
        ({"caption": "a cat"}, {"high": high}, "did not make"),
        ({"scale": 2}, {"picture": high}, "did not make"),
        ({"scale": 2}, {"high": np.float16(3)}, "did not make"),
        ([1], {"high": high}, "did not make"),
        ({"scale": 2}, {}, "no whole shard"),
        ({"scale": 2}, {"high": np.asfortranarray(np.zeros((4, 8, 8)))}, "no whole shard"),
    ):
        write_shard(folder / "a.tar", [Sample("0", facts, held)])
        with pytest.raises(ConfigError, match=words):
            load_shards(folder)
    (folder / "a.tar").write_text("no tar at all" * 1000)
    with pytest.raises(ConfigError, match=r"a\.tar is no whole shard"):
        load_shards(folder)
    write_shard(folder / "a.tar", [Sample("0", {"scale": 4}, {"high": high})])
    with pytest.raises(ConfigError, match="one scale and codec"):
        load_shards(folder, shards)
    for nothing in (tmp_path / "nowhere", tmp_path / "note.txt"):
        with pytest.raises(ConfigError, match="There are no latents in"):
            load_shards(nothing)


# --- encoding


def test_shards_hold_latents_of_their_photographs(shards: Path, codec: TinyVAE) -> None:
    data = load_shards(shards)
    assert data.scale == 2 and data.channels == 4 and len(data.samples) == 6
    assert sum(sample.facts["view"]["flip"] for sample in data.samples) == 3
    for sample in data.samples:
        image = load_view(View(**sample.facts["view"]), 16)
        high, wide = codec.encode(image)[0], (4, image.shape[-2] // 8, image.shape[-1] // 8)
        assert torch.allclose(high, torch.from_numpy(sample.arrays["high"].copy()).float(), atol=2e-3)
        assert {sample.arrays[kind].shape for kind in ("high", "latent", "image")} == {wide}
        assert sample.arrays["low"].shape == (4, wide[1] // 2, wide[2] // 2)


def test_only_the_guides_asked_for_are_made(photos: Path, codec: TinyVAE, tmp_path: Path) -> None:
    made(photos, codec, tmp_path / "one", Encoding(guides=("image",)))
    assert set(load_shards(tmp_path / "one").samples[0].arrays) == {"high", "low", "image"}


def test_photographs_behind_links_are_found_and_loops_end(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "place" / "own").mkdir(parents=True)
    (tmp_path / "place" / "link").symlink_to(photos, target_is_directory=True)
    (tmp_path / "place" / "own" / "loop").symlink_to(tmp_path / "place", target_is_directory=True)
    assert [path.name for path in find_photos([tmp_path / "place"])] == ["0.png", "1.png", "2.png"]


def test_useless_photographs_are_skipped_and_listed(photos: Path, codec: TinyVAE, tmp_path: Path) -> None:
    (photos / "corrupt.jpg").write_bytes(b"\xff\xd8\xff no picture")
    Image.new("RGB", (15, 200)).save(photos / "narrow.png")
    maker = made(photos, codec, tmp_path / "out")
    assert len(load_shards(tmp_path / "out").samples) == 6
    assert len(maker.skipped) == 4, "each of the two, and its mirror image"
    assert any("corrupt.jpg" in said for said in maker.skipped)
    assert any("narrow.png is smaller than 16 pixels" in said for said in maker.skipped)


def test_a_killed_encoding_makes_only_what_is_missing(
    photos: Path, codec: TinyVAE, tmp_path: Path, small_shards: None
) -> None:
    maker = made(photos, codec, tmp_path / "out")
    whole = contents(maker.out)
    assert sorted(whole) == ["encode.json", "shard-000000.tar", "shard-000001.tar", "shard-000002.tar"]
    (maker.out / "shard-000001.tar").unlink()
    kept = (maker.out / "shard-000000.tar").stat().st_mtime_ns
    progress: list[tuple[int, int]] = []
    again = ShardMaker(maker.views, maker.how, codec, maker.out)
    again.make(again.shards, lambda done, total: progress.append((done, total)))
    assert progress == [(1, 2), (2, 2)] and contents(maker.out) == whole
    assert (maker.out / "shard-000000.tar").stat().st_mtime_ns == kept


def test_an_interrupt_leaves_no_half_shard(photos: Path, codec: TinyVAE, tmp_path: Path, small_shards: None) -> None:
    maker = ShardMaker(plan_views(find_photos([photos])), Encoding(), codec, tmp_path / "out")

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        maker.make(maker.shards, stop)
    assert sorted(contents(maker.out)) == [
        "encode.json", "shard-000000.tar", "view-00000000.part", "view-00000001.part", "view-00000002.part",
    ]  # fmt: skip


def test_a_stopped_encoding_loses_no_view_of_a_shard_that_is_not_whole(
    photos: Path, codec: TinyVAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = contents(made(photos, codec, tmp_path / "whole").out)
    views = plan_views(find_photos([photos]))

    def stop(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    first = ShardMaker(views, Encoding(), codec, tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        first.make(first.shards, stop)
    (tmp_path / "out" / "view-00000001.part").write_bytes(b"damaged")
    encoded = []
    monkeypatch.setattr(encode, "load_view", lambda view, unit: encoded.append(view) or load_view(view, unit))
    again = ShardMaker(views, Encoding(), codec, tmp_path / "out")
    again.make(again.shards)
    assert encoded == [views[1], *views[4:]] and contents(tmp_path / "out") == whole


def test_a_plan_that_has_no_shard_yet_gives_way_to_another(photos: Path, codec: TinyVAE, tmp_path: Path) -> None:
    views = plan_views(find_photos([photos]))

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    first = ShardMaker(views, Encoding(degrade=False, seed=1), codec, tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        first.make(first.shards, stop)
    with pytest.warns(FMBoostWarning, match="1 views in .*out were encoded by another plan, and are encoded again"):
        ShardMaker(views, Encoding(scale=4), codec, tmp_path / "out")
    assert list(contents(tmp_path / "out")) == ["encode.json"]
    (tmp_path / "out" / "encode.json").write_text("{")
    maker = made(photos, codec, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"another plan \(different: encoding\)"):
        ShardMaker(views, Encoding(scale=4), codec, maker.out)


def test_a_full_disk_leaves_no_half_shard(photos: Path, codec: TinyVAE, tmp_path: Path, small_shards: None) -> None:
    maker = ShardMaker(plan_views(find_photos([photos])), Encoding(), codec, tmp_path / "out")
    with full_disk(3000), pytest.raises(FileError, match=r"view-00000000\.part cannot be written"):
        maker.make(maker.shards)
    assert list(contents(maker.out)) == ["encode.json"]


def test_squares_are_cut_out_of_photographs(tmp_path: Path) -> None:
    """Each at a place of its own, within the photograph; several passes have other places; a small one is whole."""
    down, across = np.mgrid[:96, :128].astype(np.uint8)
    photo = tmp_path / "a.png"
    Image.fromarray(np.stack([down, across, down], 2)).save(photo)
    views = plan_views([photo], mirror=False, side=40, cuts=12)
    assert len(views) == 12 and views == plan_views([photo], mirror=False, side=40, cuts=12)
    corners = set()
    for view in views:
        image = ((load_view(view, 8)[0] + 1) * 127.5).round()
        assert image.shape == (3, 40, 40)
        top, left = int(image[0, 0, 0]), int(image[1, 0, 0])
        assert torch.equal(image[0, :, 0], torch.arange(top, top + 40.0)) and 0 <= left <= 88
        corners.add((top, left))
    assert len(corners) == 12
    (whole,) = plan_views([photo], mirror=False, side=500)
    assert load_view(whole, 8).shape == (1, 3, 96, 128)
    for side, cuts in ((-1, 1), (0, 2), (40, 0)):
        with pytest.raises(ConfigError, match="cut into squares"):
            plan_views([photo], side=side, cuts=cuts)


def test_shards_of_another_plan_are_not_mixed(photos: Path, shards: Path, codec: TinyVAE) -> None:
    views = plan_views(find_photos([photos]))
    before = contents(shards)
    for how in (Encoding(scale=4), Encoding(degrade=True), Encoding(guide_codec="o"), Encoding(codec="o")):
        with pytest.raises(ConfigError, match=r"another plan \(different: encoding\)"):
            ShardMaker(views, how, codec, shards)
    with pytest.raises(ConfigError, match=r"different: views"):
        ShardMaker(views[1:], Encoding(), codec, shards)
    assert contents(shards) == before
    for damage, words in (("{", "is damaged"), ("[]", "another plan")):
        (shards / "encode.json").write_text(damage)
        with pytest.raises(ConfigError, match=words):
            ShardMaker(views, Encoding(), codec, shards)


def test_a_plan_from_before_there_were_more_options_goes_on(photos: Path, shards: Path, codec: TinyVAE) -> None:
    plan = json.loads((shards / "encode.json").read_text())
    for option in ("boosted", "disturb"):
        del plan["encoding"][option]
    (shards / "encode.json").write_text(json.dumps(plan))
    views = plan_views(find_photos([photos]))
    ShardMaker(views, Encoding(), codec, shards)
    with pytest.raises(ConfigError, match="different: encoding"):
        ShardMaker(views, Encoding(guides=("latent",), disturb=True), codec, shards)


def test_processes_make_each_shard_once_and_the_same(
    photos: Path, codec: TinyVAE, tmp_path: Path, small_shards: None
) -> None:
    alone = made(photos, codec, tmp_path / "alone")
    counts = []
    for rank in ("1", "0"):
        maker = ShardMaker(alone.views, alone.how, codec, tmp_path / "shared")
        told: list[int] = []
        maker.make(
            share(maker.shards, {"RANK": rank, "WORLD_SIZE": "2"}), lambda done, total, told=told: told.append(done)
        )
        counts.append(len(told))
    assert counts == [2, 4] and contents(tmp_path / "shared") == contents(alone.out)


def test_a_degraded_encoding_is_repeated_from_its_shard_alone(photos: Path, codec: TinyVAE, tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    made(photos, codec, tmp_path / "degraded", Encoding(degrade=True, seed=5))
    data = load_shards(tmp_path / "degraded")
    assert len({json.dumps(sample.facts["degradation"]) for sample in data.samples}) == 6
    for sample in data.samples:
        image = load_view(View(**sample.facts["view"]), 16)
        small = reduced(image, 2, Degradation.from_json(json.dumps(sample.facts["degradation"])))
        assert np.array_equal(codec.encode(small)[0].half().numpy(), sample.arrays["low"])
        assert not torch.equal(small, reduced(image, 2))


def test_low_latents_can_be_a_model_s_results_and_disturbed(photos: Path, codec: TinyVAE, tmp_path: Path) -> None:
    """As in a second stage: reduced twice, boosted once; the guide is made from the result."""
    model = make_model()
    how = Encoding(guides=("latent",), boosted="tiny", seed=3)
    made(photos, codec, tmp_path / "boosted", how, model=model)
    made(photos, codec, tmp_path / "both", replace(how, disturb=True), model=model)
    data = load_shards(tmp_path / "boosted", tmp_path / "both")
    for number, (one, other) in enumerate(zip(data.samples[:6], data.samples[6:], strict=True)):
        image = load_view(View(**one.facts["view"]), 32)
        with torch.inference_mode():
            low = boost(codec.encode(reduced(reduced(image, 2), 2)), model, codec, seed=3 + number)
            for sample, expected in ((one, low), (other, disturbed(low, 3 + number))):
                assert torch.allclose(torch.from_numpy(sample.arrays["low"].copy()).float()[None], expected, atol=0.01)
                guide = pixel_upsample(expected, codec, (image.shape[-2], image.shape[-1]))
                assert torch.allclose(torch.from_numpy(sample.arrays["latent"].copy()).float()[None], guide, atol=0.02)
    LatentCrops(data, 4, {"latent:boosted": 0.5, "latent:boosted:disturbed": 0.5})


def test_a_teacher_makes_the_ground_truth_of_decoded_small_latents(
    photos: Path, codec: TinyVAE, tmp_path: Path
) -> None:
    """A teacher of four times is reduced to two and restored; it is shown what the latent holds, disturbed or not."""

    def four_times(image: Tensor) -> Tensor:
        return image.square().repeat_interleave(4, 2).repeat_interleave(4, 3)

    how = Encoding(guides=("latent",), teacher="square", disturb=True, seed=5)
    made(photos, codec, tmp_path / "taught", how, teacher=four_times)
    sample, *_ = load_shards(tmp_path / "taught").samples
    low, high = (torch.from_numpy(sample.arrays[name].copy()).float()[None] for name in ("low", "high"))
    with torch.inference_mode():
        seen = codec.decode(low).clamp(-1, 1)
        large = F.interpolate(four_times((seen + 1) / 2) * 2 - 1, scale_factor=0.5, mode="bicubic", antialias=True)
        truth = restored(large.clamp(-1, 1), seen, look=False)
        wanted, bare = (codec.encode(x) for x in (truth, large.clamp(-1, 1)))
        assert torch.allclose(high, wanted, atol=1e-4)
        assert not torch.allclose(high, bare, atol=1e-4)  # it is restored
    LatentCrops(load_shards(tmp_path / "taught"), 4, {"latent:disturbed:taught": 1})


def test_critics_may_take_the_photographs_of_taught_shards_for_real(
    photos: Path, shards: Path, codec: TinyVAE, tmp_path: Path
) -> None:
    def black(image: Tensor) -> Tensor:
        return torch.zeros(1, 3, 2 * image.shape[-2], 2 * image.shape[-1])

    made(photos, codec, tmp_path / "taught", Encoding(guides=("latent",), teacher="black"), teacher=black)
    made(photos, codec, tmp_path / "both", Encoding(teacher="black"), teacher=black)
    LatentCrops(load_shards(tmp_path / "both"), 4, {"image:taught": 1})
    taught, plain = load_shards(tmp_path / "taught"), load_shards(shards)
    assert all(
        np.array_equal(one.arrays["photo"], other.arrays["high"])
        for one, other in zip(taught.samples, plain.samples, strict=True)
    )
    for data, photographs, alike in ((taught, True, False), (taught, False, True), (plain, True, True)):
        crops = LatentCrops(data, 4, {}, photos=photographs)
        high, _, _, real, _ = crops.draw(5, torch.Generator().manual_seed(0))
        assert torch.equal(real, high) is alike
        if not alike:  # at the same places of the same photographs
            of_plain = LatentCrops(LatentSet(plain.samples, 2), 4, {"latent": 1})
            assert torch.equal(real, of_plain.draw(5, torch.Generator().manual_seed(0)).high)
    old = [Sample(s.key, s.facts, {k: v for k, v in s.arrays.items() if k != "photo"}) for s in taught.samples]
    LatentCrops(LatentSet(old, 2), 4, {})
    with pytest.raises(ConfigError, match="encode them again, or set"):
        LatentCrops(LatentSet(old, 2), 4, {}, photos=True)


def twice(image: Tensor) -> Tensor:
    return image.square().repeat_interleave(2, 2).repeat_interleave(2, 3)


def test_guides_can_be_enlarged_by_an_upscale_model(photos: Path, codec: TinyVAE, tmp_path: Path) -> None:
    how = Encoding(guides=("enlarged",), upscale_model="twice", teacher="twice", restore=False)
    folder = made(photos, codec, tmp_path / "enlarged", how, teacher=twice, upscale_model=twice).out
    (sample, *_) = load_shards(folder).samples
    low = torch.from_numpy(sample.arrays["low"].copy()).float()[None]
    large = twice(codec.decode(low).clamp(-1, 1) / 2 + 0.5) * 2 - 1
    expected = codec.encode(large)[0]
    for name in ("enlarged", "high"):  # the teacher's image is not restored
        assert (torch.from_numpy(sample.arrays[name].copy()) - expected).abs().max() < 2e-2, name
    assert sample.facts["upscale_model"] == "twice"
    batch = LatentCrops(load_shards(folder), 4, {"enlarged:taught": 1.0}).draw(3, torch.Generator().manual_seed(0))
    assert (batch.kind == GUIDE_KINDS.index("enlarged")).all()


def test_images_are_kept_in_the_place_of_latents(photos: Path, codec: TinyVAE, tmp_path: Path) -> None:
    data = load_shards(made(photos, codec, tmp_path / "images", Encoding(images=True)).out)
    for sample in data.samples:
        assert sorted(sample.arrays) == ["decoded", "picture", "reduced"]
        image = load_view(View(**sample.facts["view"]), 16)
        small = reduced(image, 2)
        for name, pixels in (("picture", image), ("reduced", small), ("decoded", codec.decode(codec.encode(small)))):
            found = torch.from_numpy(sample.arrays[name].copy()).float() / 127.5 - 1
            assert (found - pixels[0].clamp(-1, 1)).abs().max() < 0.01, name
    crops = ImageCrops(data, 4, {"image": 1.0})
    small, photo = crops.draw(6, torch.Generator().manual_seed(0))
    assert small.shape == (6, 3, 16, 16) and photo.shape == (6, 3, 32, 32)
    inner = (..., slice(2, -2), slice(2, -2))  # the reduction reaches over the crop's end
    assert (reduced(photo, 2) - small)[inner].abs().max() < 0.02, "both are cut at the same place"
    assert not torch.equal(crops.draw(6, torch.Generator().manual_seed(1))[0], small)
    with pytest.raises(ConfigError, match="encode them again with --images"):
        ImageCrops(load_shards(made(photos, codec, tmp_path / "latents").out), 4, {})
    guides = Encoding(guides=("enlarged",), upscale_model="twice")
    with pytest.raises(ConfigError, match="encode them again with --images"):
        ImageCrops(load_shards(made(photos, codec, tmp_path / "guides", guides, upscale_model=twice).out), 4, {})


def test_images_of_a_second_stage_are_what_an_upscale_model_has_made(
    photos: Path, codec: TinyVAE, tmp_path: Path
) -> None:
    how = Encoding(images=True, upscale_model="twice")
    data = load_shards(made(photos, codec, tmp_path / "staged", how, upscale_model=twice).out)
    for sample in data.samples:
        assert sorted(sample.arrays) == ["enlarged", "picture", "reduced"]
        picture = torch.from_numpy(sample.arrays["picture"].copy())[None].float() / 127.5 - 1
        assert picture.shape[-2] % 32 == picture.shape[-1] % 32 == 0, "whole latents of the first stage"
        decoded = codec.decode(codec.encode(reduced(reduced(load_view(View(**sample.facts["view"]), 32), 2), 2)))
        small = decoded.clamp(-1, 1)
        wanted = recoloured((twice(small / 2 + 0.5) * 2 - 1).clamp(-1, 1), small, broad=False)
        found = torch.from_numpy(sample.arrays["enlarged"].copy()).float() / 127.5 - 1
        assert (found - wanted[0]).abs().max() < 0.01
    small, photo = ImageCrops(data, 4, {"enlarged": 1.0}).draw(2, torch.Generator().manual_seed(0))
    assert small.shape == (2, 3, 16, 16) and photo.shape == (2, 3, 32, 32)


def test_codecs_of_two_families_do_not_share_shards(photos: Path, codec: TinyVAE, tmp_path: Path) -> None:
    other = _ZeroCodec()
    codec.family, other.family = "sd15", "sdxl"
    with pytest.raises(LatentError, match="the codec is for SDXL latents"):
        made(photos, codec, tmp_path / "out", Encoding(guide_codec="other"), guide_codec=other)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"scale": 1.5}, "must have a whole scale, but tiny has 1.5"),
        ({"objective": "l2"}, "trained as a baseline"),
        ({"config": replace(TINY, channels=16), "family": "flux1"}, "but the codec has 4 channels"),
    ],
)
def test_a_model_that_cannot_boost_low_latents_is_refused_before_anything_is_written(
    spec: dict[str, Any], words: str, photos: Path, codec: TinyVAE, tmp_path: Path
) -> None:
    with pytest.raises(FMBoostError, match=words):
        made(photos, codec, tmp_path / "out", Encoding(guides=("latent",), boosted="b"), model=make_model(**spec))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"scale": 1}, "scale must be"),
        ({"guides": ()}, "guides must be"),
        ({"guides": ("low",)}, r"guides must be some of latent, image, enlarged, but they are \['low'\]"),
        ({"disturb": True}, "guides from latents alone"),
        ({"boosted": "m", "guides": ("image",)}, "guides from latents alone"),
        ({"guides": ("enlarged",)}, "go together"),
        ({"upscale_model": "m"}, "go together"),
        ({"images": True, "teacher": "m"}, "neither a teacher nor guides"),
        ({"images": True, "upscale_model": "m", "guides": ("enlarged",)}, "neither a teacher nor guides"),
        ({"images": True, "upscale_model": "m", "boosted": "m", "guides": ("latent",)}, "Two stages"),
    ],
)
def test_impossible_encodings_are_sentences(fields: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Encoding(**fields)


# --- photographs


def test_photographs_are_found_without_what_is_hidden(photos: Path, tmp_path: Path) -> None:
    (photos / "deep").mkdir()
    for name in ("deep/a.JPG", ".hidden.png", "notes.txt"):
        (photos / name).write_bytes(b"")
    found = find_photos([photos, photos / "0.png"])
    assert [path.name for path in found] == ["0.png", "1.png", "2.png", "a.JPG", "0.png"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"No photographs .*empty"):
        find_photos([tmp_path / "empty"])
    with pytest.raises(ConfigError, match=r"There is no file or folder .*nowhere"):
        find_photos([photos, tmp_path / "nowhere"])


def test_every_photograph_comes_before_any_comes_again() -> None:
    views = plan_views([Path(f"{i}.png") for i in range(5)], seed=3, reduce=(1, 2))
    assert len(views) == len(set(views)) == 20
    passes = [views[i : i + 5] for i in range(0, 20, 5)]
    assert all({view.path for view in one} == {f"{i}.png" for i in range(5)} for one in passes)
    assert [one[0].reduce for one in passes] == [1, 2, 1, 2] and [one[0].flip for one in passes] == [0, 0, 1, 1]
    for bad in ({"reduce": (0.5,)}, {"reduce": (float("nan"),)}, {"seed": -1}, {"seed": 10**30}):
        with pytest.raises(ConfigError, match=r"factors from 1|seed must be"):
            plan_views([Path("a.png")], **bad)


# --- crops


def test_photo_crops_are_aligned_with_their_latents(shards: Path, codec: TinyVAE) -> None:
    """A 1x1 crop's photograph is the 8x8 pixels of its latent: the crops of a mirrored view are mirrored too."""
    crops = PhotoCrops(load_shards(shards), 8)
    pixels, latents = crops.draw(16, torch.Generator().manual_seed(0))
    assert pixels.shape == (16, 3, 64, 64) and latents.shape == (16, 4, 8, 8)
    inner = codec.encode(pixels)[..., 3:5, 3:5]
    error = (inner - latents[..., 3:5, 3:5]).square().mean()
    shuffled = (inner - latents.roll(1, 0)[..., 3:5, 3:5]).square().mean()
    assert error < shuffled / 4


def test_crops_come_from_all_views_equally_whatever_their_size() -> None:
    sampler = CropSampler([(4, 4), (8, 4), (3, 9)], 4)
    drawn = sampler.draw(6000, torch.Generator().manual_seed(0))
    assert {i for i, _, _ in drawn} == {0, 1}
    assert sum(i == 0 for i, _, _ in drawn) / 6000 == pytest.approx(1 / 2, abs=0.02)
    tops = [top for i, top, _ in drawn if i == 1]
    assert all(tops.count(top) / len(tops) == pytest.approx(1 / 5, abs=0.03) for top in range(5))
    with pytest.raises(ConfigError, match="smaller crop"):
        CropSampler([(4, 4)], 5)


def test_groups_are_drawn_by_their_shares() -> None:
    sampler = CropSampler([(4, 4), (8, 4), (3, 9), (5, 5)], 4, ["a", "b", "b", "b"])
    sampler.set_shares({"a": 4, "b": 1})  # b's smallest view does not fit and takes nothing from the others
    drawn = [i for i, _, _ in sampler.draw(6000, torch.Generator().manual_seed(0))]
    assert [drawn.count(i) / 6000 for i in range(4)] == pytest.approx([0.8, 0.1, 0, 0.1], abs=0.02)
    for group, views in (("b", {1, 3}), ("a", {0})):
        sampler.set_shares({group: 1})
        assert {i for i, _, _ in sampler.draw(100, torch.Generator().manual_seed(0))} == views
    for bad in ({"a": -1, "b": 1}, {"a": 0, "b": 0}, {"a": float("nan")}, {}):
        with pytest.raises(ConfigError, match="Shares"):
            sampler.set_shares(bad)


class _ZeroCodec:
    """A codec whose every latent is zero."""

    channels, downscale_factor = 4, 8

    def encode(self, images: Tensor) -> Tensor:
        return torch.zeros(images.shape[0], 4, images.shape[-2] // 8, images.shape[-1] // 8)

    def decode(self, latents: Tensor) -> Tensor:
        return torch.zeros(latents.shape[0], 3, 8 * latents.shape[-2], 8 * latents.shape[-1])


def test_a_crop_knows_what_its_guide_was_encoded_from(
    photos: Path, shards: Path, codec: TinyVAE, tmp_path: Path
) -> None:
    """Guides of another codec are a group of their own, with high latents of the first codec."""
    made(photos, codec, tmp_path / "other", Encoding(guide_codec="other"), guide_codec=_ZeroCodec())
    data = load_shards(shards, tmp_path / "other")

    def drawn(shares: dict[str, float], count: int = 8) -> tuple[Tensor, Tensor, Tensor]:
        high, guide, kind, _, low = LatentCrops(data, 4, shares).draw(count, torch.Generator().manual_seed(0))
        assert low is None  # small latents are for fast guides
        return high, guide, kind

    _, guide, kind = drawn({"image": 1})
    assert (kind == 1).all() and guide.any()
    high, guide, kind = drawn({"latent:other": 1})
    assert (kind == 0).all() and not guide.any() and high.any()
    high, guide, kind = drawn({}, 400)
    assert kind.float().mean() == pytest.approx(0.5, abs=0.1)
    assert (guide.flatten(1) == 0).all(1).float().mean() == pytest.approx(0.5, abs=0.1), "all groups alike"
    high, guide, kind = drawn({"resized": 1, "resized:other": 0})
    assert (kind == 2).all() and guide.any()
    assert not drawn({"resized:other": 1})[1].any()
    with pytest.raises(
        ConfigError, match="names pictures, but the shards' groups of guides are image, image:other, latent"
    ):
        drawn({"pictures": 1})


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_guides_in_latent_space_are_the_resized_low_latent_at_the_crop_s_place(mode: str) -> None:
    """Each high latent holds its own place, so a crop shows where it was cut."""
    place = np.arange(12 * 16, dtype=np.float16).reshape(1, 12, 16).repeat(4, 0)
    low = np.random.default_rng(0).normal(size=(4, 6, 8)).astype(np.float16)
    data = LatentSet([Sample("0", {"scale": 2}, {"high": place, "low": low})], 2)
    expected = resize(torch.from_numpy(low).float()[None], (12, 16), mode)[0]
    high, guide, kind, *_ = LatentCrops(data, 4, {}, mode).draw(20, torch.Generator().manual_seed(0))
    corners = [divmod(int(h[0, 0, 0]), 16) for h in high]
    assert len(set(corners)) > 5 and (kind == GUIDE_KINDS.index("resized")).all()
    for (top, left), crop in zip(corners, guide, strict=True):
        assert torch.equal(crop, expected[:, top : top + 4, left : left + 4])
    with pytest.raises(ConfigError, match=f"upsampling {mode} has none"):
        LatentCrops(data, 4, {"image": 1}, mode)


def test_shards_without_guides_are_a_sentence() -> None:
    high = np.zeros((4, 8, 8), np.float16)
    for upsampling in ("psu", "nearest"):
        with pytest.raises(ConfigError, match=f"nothing to make guides for upsampling {upsampling}"):
            LatentCrops(LatentSet([Sample("0", {"scale": 2}, {"high": high})], 2), 4, {}, upsampling)


def test_the_same_generator_draws_the_same_crops(shards: Path) -> None:
    for upsampling in ("psu", "fast", "bilinear"):
        crops = LatentCrops(load_shards(shards), 4, {}, upsampling)
        first, second = (crops.draw(8, torch.Generator().manual_seed(3)) for _ in range(2))
        pairs = zip(first, second, strict=True)
        assert all(a is b is None or torch.equal(a, b) for a, b in pairs)


def test_a_folder_that_cannot_be_made_is_a_sentence(photos: Path, codec: TinyVAE, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be used"):
        made(photos, codec, tmp_path / "file" / "deep")
