"""Pictures with more than 8 bits a channel, in colour too; pages, frames, and formats without loss."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, features

from fmboost_core.errors import ImageError
from fmboost_core.imaging import png
from fmboost_core.imaging.formats import READ_SUFFIXES
from fmboost_core.imaging.metadata import Metadata
from fmboost_core.imaging.picture import Picture
from fmboost_core.imaging.read import read_picture
from fmboost_core.imaging.write import Encoding, write_picture

RNG = np.random.default_rng(0)
SMOOTH = (np.indices((37, 45)).sum(0)[..., None] * np.array([700, 611, 503, 409])).astype(np.uint16)
NOISE = RNG.integers(0, 65536, (37, 45, 4), dtype=np.uint16)


def channels(values: np.ndarray, count: int) -> np.ndarray:
    """The first channels, grey with alpha for two."""
    return np.ascontiguousarray(values[..., [0, 3]] if count == 2 else values[..., :count])


def simple_png(values: np.ndarray, *, interlaced: bool = False, extra: bytes = b"") -> bytes:
    """A PNG of 16 bits without filters, as the standard says; interlaced: in the seven passes of Adam7."""
    height, width, count = values.shape
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    parts = [values[y::dy, x::dx] for x, y, dx, dy in passes] if interlaced else [values]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for part in parts if part.size for row in part)
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[count]
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, int(interlaced))
    chunks = png.Chunk(b"IHDR", header).tobytes() + extra + png.Chunk(b"IDAT", zlib.compress(rows)).tobytes()
    return png.SIGNATURE + chunks + png.Chunk(b"IEND", b"").tobytes()


def values_of(picture: Picture) -> np.ndarray:
    """The picture's numbers (H,W,channels) of 16 bits."""
    colours = ((picture.rgb[0] + 1) / 2)[: 1 if picture.grey else 3]
    parts = [colours] if picture.alpha is None else [colours, picture.alpha[0]]
    return (torch.cat(parts) * 65535).round().permute(1, 2, 0).numpy().astype(np.uint16)


def opaque(values: np.ndarray) -> np.ndarray:
    """Without pixels of alpha 0, whose colours are not kept."""
    if values.shape[-1] in (2, 4):
        values = values.copy()
        values[..., -1] = np.maximum(values[..., -1], 1)
    return values


# --- PNG


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", ["smooth", "noise", "interlaced"])
def test_a_png_of_16_bits_goes_in_and_out_with_16_bits(tmp_path, kind, count):
    values = opaque(channels(SMOOTH if kind == "smooth" else NOISE, count))
    (tmp_path / "in.png").write_bytes(simple_png(values, interlaced=kind == "interlaced"))
    picture = read_picture(tmp_path / "in.png")
    assert picture.deep and picture.notes == () and np.array_equal(values_of(picture), values)
    assert write_picture(tmp_path / "out.png", picture) == ()
    assert np.array_equal(values_of(read_picture(tmp_path / "out.png")), values)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_other_readers_take_what_is_written(tmp_path, count):
    values = opaque(channels(SMOOTH, count))
    data = png.encode_deep(values)
    with Image.open(BytesIO(data)) as image:  # Pillow checks sums and filters, and drops the low bytes
        found = np.asarray(image.convert({1: "I", 2: "RGBA", 3: "RGB", 4: "RGBA"}[count]))
    if count == 1:
        assert np.array_equal(found, values[..., 0])
    else:
        wanted = values[..., [0, 0, 0, 1]] if count == 2 else values
        assert np.array_equal(found, wanted >> 8)
    assert len(data) < 0.75 * values.nbytes  # the filters work


def test_a_transparent_colour_counts_all_16_bits(tmp_path):
    values = np.full((4, 6, 3), 0x1234, np.uint16)
    values[:, 3:] = 0x1235
    key = png.Chunk(b"tRNS", struct.pack(">3H", 0x1235, 0x1235, 0x1235)).tobytes()
    (tmp_path / "in.png").write_bytes(simple_png(values, extra=key))
    alpha = read_picture(tmp_path / "in.png").alpha
    assert alpha is not None and torch.equal(alpha[0, 0, 0], torch.tensor([1.0] * 3 + [0.0] * 3))


def test_a_cut_png_of_16_bits_is_refused(tmp_path):
    (tmp_path / "in.png").write_bytes(simple_png(channels(NOISE, 3))[:4000])
    with pytest.raises(ImageError, match="damaged or cut short"):
        read_picture(tmp_path / "in.png")


# --- TIFF


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("layout", ["strips", "tiles", "planes"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_tiff_of_16_bits_goes_in_and_out_with_16_bits(tmp_path, compression, layout, order):
    values = channels(NOISE, 3)
    options = {
        "strips": {"rowsperstrip": 7}, "tiles": {"tile": (16, 32)}, "planes": {"planarconfig": "separate"},
    }[layout]  # fmt: skip
    predictor = {"predictor": 2} if compression and order == "<" else {}
    tifffile.imwrite(
        tmp_path / "in.tif", values.transpose(2, 0, 1) if layout == "planes" else values, photometric="rgb",
        compression=compression, byteorder=order, **options, **predictor,
    )  # fmt: skip
    picture = read_picture(tmp_path / "in.tif")
    assert picture.deep and np.array_equal(values_of(picture), values)
    assert write_picture(tmp_path / "out.tif", picture) == ()
    assert np.array_equal(tifffile.imread(tmp_path / "out.tif"), values)
    assert write_picture(tmp_path / "out.png", picture) == ()
    assert np.array_equal(values_of(read_picture(tmp_path / "out.png")), values)


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_deflate", "tiff_adobe_deflate"])
@pytest.mark.parametrize("predictor", [1, 2])
def test_what_libtiff_packs_is_unpacked(tmp_path, compression, predictor):
    grey = SMOOTH[..., 0]
    Image.fromarray(grey).save(tmp_path / "in.tif", compression=compression, tiffinfo={317: predictor})
    assert np.array_equal(values_of(read_picture(tmp_path / "in.tif"))[..., 0], grey)


@pytest.mark.parametrize("kind", ["f2", "f4", "f8"])
@pytest.mark.parametrize("layout", [{}, {"tile": (16, 16)}])
def test_floats_from_0_to_1_are_read_with_16_bits(tmp_path, kind, layout):
    values = (channels(SMOOTH, 3).astype(np.float64) / 65535).astype(kind)
    tifffile.imwrite(tmp_path / "in.tif", values, photometric="rgb", **layout)
    picture = read_picture(tmp_path / "in.tif")
    assert np.abs(values_of(picture) - np.round(values.astype(np.float64) * 65535)).max() <= 1
    assert f"{np.dtype(kind).itemsize * 8}-bit float values were read as 16-bit integers" in picture.notes[0]


def test_the_predictor_of_floats_is_undone(tmp_path):
    values = (SMOOTH[..., 0] / 65535).astype(np.float32)
    Image.fromarray(values).save(tmp_path / "in.tif", compression="tiff_lzw", tiffinfo={317: 3})
    assert tifffile.TiffFile(tmp_path / "in.tif").pages[0].predictor == 3
    assert np.array_equal(values_of(read_picture(tmp_path / "in.tif")), SMOOTH[..., :1])


@pytest.mark.parametrize("kind", ["f4", "i2", "u4"])
def test_values_of_another_range_are_refused_by_their_name(tmp_path, kind):
    values = (np.ones((4, 4, 3)) * (70_000 if kind == "u4" else -1)).astype(kind)
    tifffile.imwrite(tmp_path / "in.tif", values, photometric="rgb")
    name = "32-bit float values outside 0..1" if kind == "f4" else "integer values outside 0..65535"
    with pytest.raises(ImageError, match=name):
        read_picture(tmp_path / "in.tif")


@pytest.mark.parametrize("kind", ["unassalpha", "assocalpha", "unspecified"])
def test_the_kinds_of_alpha_are_told_apart(tmp_path, kind):
    values = np.full((4, 4, 4), 20_000, np.uint16)
    values[..., 3] = 40_000
    tifffile.imwrite(tmp_path / "in.tif", values, photometric="rgb", extrasamples=[kind])
    picture = read_picture(tmp_path / "in.tif")
    found = values_of(picture)
    assert abs(int(found[0, 0, 0]) - (32767 if kind == "assocalpha" else 20_000)) <= 1
    assert found.shape[-1] == (3 if kind == "unspecified" else 4)
    assert ("1 channels beyond colour" in " ".join(picture.notes)) == (kind == "unspecified")


def test_white_may_be_zero(tmp_path):
    tifffile.imwrite(tmp_path / "in.tif", channels(SMOOTH, 1)[..., 0], photometric="miniswhite")
    assert np.array_equal(values_of(read_picture(tmp_path / "in.tif")), 65535 - channels(SMOOTH, 1))


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("deep", [False, True])
def test_a_tiff_is_written_for_other_readers(tmp_path, count, deep):
    values = opaque(channels(NOISE, count))
    picture = Picture(
        torch.from_numpy(np.repeat(values[..., :1], 3, -1) if count < 3 else values[..., :3]).permute(2, 0, 1)[None]
        / 65535 * 2 - 1,
        torch.from_numpy(values[..., -1:]).permute(2, 0, 1)[None] / 65535 if count in (2, 4) else None,
        grey=count < 3, deep=deep, metadata=Metadata(dpi=(300, 300)),
    )  # fmt: skip
    write_picture(tmp_path / "out.tif", picture)
    found = tifffile.imread(tmp_path / "out.tif").reshape(values.shape)
    wanted = values if deep else np.round(values / 257).astype(np.uint8)
    assert found.dtype == wanted.dtype and np.abs(found.astype(int) - wanted).max() <= 1
    if not deep:
        with Image.open(tmp_path / "out.tif") as image:
            assert image.mode == {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[count]
            assert np.array_equal(np.asarray(image).reshape(values.shape), found)


def test_a_turned_tiff_of_16_bits_stands_upright(tmp_path):
    values = channels(NOISE, 3)
    tifffile.imwrite(tmp_path / "in.tif", values, photometric="rgb", extratags=[(274, "H", 1, 6, True)])
    assert np.array_equal(values_of(read_picture(tmp_path / "in.tif")), np.rot90(values, -1))


@pytest.mark.parametrize("deep", [False, True])
def test_a_thumbnail_behind_the_picture_is_no_page(tmp_path, deep):
    values = channels(NOISE if deep else (NOISE >> 8).astype(np.uint8), 3)
    with tifffile.TiffWriter(tmp_path / "in.tif") as file:
        file.write(values[::4, ::4], photometric="rgb", subfiletype=1)
        file.write(values, photometric="rgb")
        file.write(values[::4, ::4], photometric="rgb")
    picture = read_picture(tmp_path / "in.tif")
    assert (picture.width, picture.height) == (45, 37) and "2 of its 3 pages" in " ".join(picture.notes)
    assert np.array_equal(values_of(picture), values if deep else values.astype(np.uint16) * 257)


def test_pages_are_refused_with_the_way_out(tmp_path):
    tifffile.imwrite(tmp_path / "in.tif", np.stack([channels(NOISE, 3)] * 2), photometric="rgb")
    with pytest.raises(ImageError, match="has 2 pages; save each page as a file of its own"):
        read_picture(tmp_path / "in.tif")


def test_tiles_that_only_fill_the_memory_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "in.tif", channels(NOISE, 3), photometric="rgb", tile=(16, 16))
    data = (tmp_path / "in.tif").read_bytes()
    for tag in (322, 323):  # claims tiles of 65520 pixels a side
        at = data.index(struct.pack("<HHI", tag, 4, 1)) + 8
        data = data[:at] + struct.pack("<I", 65520) + data[at + 4 :]
    (tmp_path / "in.tif").write_bytes(data)
    with pytest.raises(ImageError, match="tiles of 65520x65520 are far larger"):
        read_picture(tmp_path / "in.tif")


# --- frames, formats without loss


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_moving_pictures_are_refused_with_the_way_out(tmp_path, suffix):
    frames = [Image.fromarray(RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)) for _ in range(3)]
    frames[0].save(tmp_path / f"in.{suffix}", save_all=True, append_images=frames[1:], duration=50)
    with pytest.raises(ImageError, match=r"has 3 frames, and only still pictures .*ffmpeg -i in\."):
        read_picture(tmp_path / f"in.{suffix}")


def test_a_webp_without_loss_stays_so(tmp_path):
    values = RNG.integers(0, 256, (20, 30, 4), dtype=np.uint8)
    values[..., 3] |= 1
    Image.fromarray(values).save(tmp_path / "in.webp", lossless=True, exact=True)
    write_picture(tmp_path / "out.webp", read_picture(tmp_path / "in.webp"))
    with Image.open(tmp_path / "out.webp") as image:
        assert np.array_equal(np.asarray(image), values)
    Image.fromarray(values).save(tmp_path / "lossy.webp")
    write_picture(tmp_path / "out.webp", read_picture(tmp_path / "lossy.webp"))
    assert not read_picture(tmp_path / "out.webp").lossless


def test_quality_and_subsampling_are_those_asked_for(tmp_path):
    picture = Picture(torch.rand(1, 3, 40, 40) * 2 - 1, lossless=True)
    sizes = []
    for quality in (30, 95):
        for suffix in ("jpg", "webp"):
            write_picture(tmp_path / f"out.{suffix}", picture, Encoding(quality=quality, subsampling="4:2:0"))
        sizes.append([(tmp_path / f"out.{suffix}").stat().st_size for suffix in ("jpg", "webp")])
    assert all(low < 0.7 * high for low, high in zip(*sizes, strict=True))
    with Image.open(tmp_path / "out.jpg") as image:
        assert image.layer[0][1:3] == (2, 2)  # type: ignore[attr-defined]
    assert not read_picture(tmp_path / "out.webp").lossless


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_avif_is_read_where_pillow_reads_it(tmp_path):
    values = np.full((24, 32, 3), 90, np.uint8)
    Image.fromarray(values).save(tmp_path / "in.avif", quality=95)
    picture = read_picture(tmp_path / "in.avif")
    assert ".avif" in READ_SUFFIXES and not picture.lossless and picture.notes == ()
    assert np.abs(values_of(picture) / 257 - 90).max() < 4
