"""Picture files: what goes in comes out as the same kind, and bad files are refused in one sentence."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageOps
from skimage import data

from fmboost_core.errors import ImageError, NonFiniteError
from fmboost_core.imaging.formats import READ_FORMATS, READ_SUFFIXES
from fmboost_core.imaging.picture import Picture
from fmboost_core.imaging.read import read_picture
from fmboost_core.imaging.write import check_output, write_picture

RGB = np.ascontiguousarray(data.astronaut()[:24, 200:232])  # 32 wide, 24 high
GREY = np.ascontiguousarray(data.camera()[100:124, 200:232])
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GRAY_PROFILE = SRGB[:16] + b"GRAY" + SRGB[20:]  # only the header counts here


def saved(path: Path, array: np.ndarray | Image.Image, **options) -> Path:
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    image.save(path, **options)
    return path


def copied(source: Path, target: Path) -> Image.Image:
    """What a file becomes when it is read and written without a change."""
    write_picture(target, read_picture(source))
    image = Image.open(target)
    image.load()
    return image


def with_alpha(array: np.ndarray) -> np.ndarray:
    alpha = np.linspace(40, 255, array.shape[1]).astype(np.uint8)[None].repeat(array.shape[0], 0)
    return np.dstack([array, alpha])


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "webp"])
def test_lossless_pixels_come_back_as_they_were(tmp_path, suffix):
    options = {"lossless": True} if suffix == "webp" else {}
    image = copied(saved(tmp_path / f"in.{suffix}", RGB, **options), tmp_path / "out.png")
    assert image.mode == "RGB" and np.array_equal(np.asarray(image), RGB)


def test_the_range_is_minus_one_to_one(tmp_path):
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    picture = read_picture(saved(tmp_path / "ramp.png", ramp))
    assert picture.rgb.shape == (1, 3, 16, 16) and picture.rgb.dtype == torch.float32
    assert (picture.rgb.min(), picture.rgb.max()) == (-1, 1)
    assert (picture.width, picture.height) == (16, 16)


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_lossy_formats_stay_close_and_full_chroma(tmp_path, suffix):
    image = copied(saved(tmp_path / "in.png", RGB), tmp_path / f"out.{suffix}")
    assert image.size == (32, 24)
    assert np.abs(np.asarray(image).astype(int) - RGB).mean() < 4
    if suffix == "jpg":
        assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3  # 4:4:4


@pytest.mark.parametrize(
    "array, mode",
    [
        (GREY, "L"),
        (np.dstack([GREY, GREY]), "LA"),
        (with_alpha(RGB), "RGBA"),
        (GREY.astype(np.uint16) * 257 + 3, "I;16"),
    ],
)
def test_grey_alpha_and_16_bit_stay_what_they_are(tmp_path, array, mode):
    image = copied(saved(tmp_path / "in.png", array), tmp_path / "out.png")
    assert np.array_equal(np.asarray(image), array)
    assert image.mode in ((mode, "I") if mode == "I;16" else (mode,))  # Pillow before 10.3 says I


@pytest.mark.parametrize("kind", ["<u2", ">u2", "<i4", "<f4"])
def test_wide_grey_tiffs_are_scaled_to_16_bits(tmp_path, kind):
    wide = np.linspace(0, 65535, 256).round().reshape(16, 16)
    array = (wide / 65535 if kind == "<f4" else wide).astype(kind)
    image = copied(saved(tmp_path / "in.tif", Image.fromarray(array)), tmp_path / "out.png")
    assert np.array_equal(np.asarray(image), wide.astype(np.uint16))


def test_32_bit_values_of_unknown_range_are_refused(tmp_path):
    path = saved(tmp_path / "in.tif", Image.fromarray(np.full((4, 4), 3.5, np.float32)))
    with pytest.raises(ImageError, match=r"in\.tif has 32-bit float values outside 0\.\.1"):
        read_picture(path)


def test_16_bit_grey_into_jpeg_says_what_is_lost(tmp_path):
    picture = read_picture(saved(tmp_path / "in.png", GREY.astype(np.uint16) * 257))
    assert "16 bits were written as 8" in write_picture(tmp_path / "out.jpg", picture)[0]
    assert Image.open(tmp_path / "out.jpg").mode == "L"


def test_one_bit_and_palette(tmp_path):
    bits = copied(saved(tmp_path / "bits.png", Image.fromarray(GREY).convert("1")), tmp_path / "bits_out.png")
    assert bits.mode == "L" and set(np.unique(np.asarray(bits))) <= {0, 255}
    palette = Image.fromarray(RGB).quantize(16)
    copy = copied(saved(tmp_path / "palette.gif", palette), tmp_path / "palette_out.png")
    assert copy.mode == "RGB" and np.array_equal(np.asarray(copy), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("kind", ["palette", "grey", "rgb", "grey16"])
def test_a_transparent_colour_becomes_alpha(tmp_path, kind):
    array = np.zeros((8, 8), np.uint8)
    array[:, 4:] = 9
    image = Image.fromarray({"rgb": np.dstack([array] * 3), "grey16": array.astype(np.uint16)}.get(kind, array))
    if kind == "palette":
        image = image.convert("P")
    key = (9, 9, 9) if kind == "rgb" else 9
    try:
        path = saved(tmp_path / "in.png", image, transparency=key)
    except OSError as error:
        pytest.skip(f"this Pillow does not write such a picture ({error})")
    picture = read_picture(path)
    assert picture.alpha is not None
    assert torch.equal(picture.alpha[0, 0, 0], torch.tensor([1.0] * 4 + [0.0] * 4))


def test_hidden_colours_do_not_bleed(tmp_path):
    array = with_alpha(np.full((16, 16, 3), 200, np.uint8))
    array[:, :8] = 0  # transparent black, as editors leave it
    array[:, 8:, 3] = 255
    picture = read_picture(saved(tmp_path / "in.png", array))
    assert torch.allclose(picture.rgb, torch.tensor(200 / 127.5 - 1), atol=1e-5)
    assert picture.alpha is not None and picture.alpha.mean() == 0.5


def test_a_wholly_transparent_picture_is_fine(tmp_path):
    image = copied(saved(tmp_path / "in.png", np.zeros((5, 3, 4), np.uint8)), tmp_path / "out.png")
    assert image.size == (3, 5) and not np.asarray(image).any()


def test_jpeg_lays_transparency_on_white(tmp_path):
    picture = read_picture(saved(tmp_path / "in.png", np.zeros((8, 8, 4), np.uint8)))
    assert "white" in write_picture(tmp_path / "out.jpg", picture)[0]
    assert np.asarray(Image.open(tmp_path / "out.jpg")).min() == 255


def test_webp_keeps_alpha_and_takes_grey(tmp_path):
    assert copied(saved(tmp_path / "a.png", with_alpha(RGB)), tmp_path / "a.webp").mode == "RGBA"
    assert copied(saved(tmp_path / "g.png", GREY), tmp_path / "g.webp").mode == "RGB"


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_and_forgotten(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "Maker"
    path = saved(tmp_path / f"in.{suffix}", Image.fromarray(RGB), exif=exif)
    with Image.open(path) as raw:
        raw.load()  # which turns TIFF upright
        upright = np.asarray((raw if suffix == "tif" else ImageOps.exif_transpose(raw)).convert("RGB"))
    image = copied(path, tmp_path / "out.png")
    assert image.size == ((24, 32) if orientation > 4 else (32, 24))
    assert np.array_equal(np.asarray(image), upright)
    assert image.getexif().get(0x0112, 1) == 1
    assert image.getexif()[0x010F] == "Maker"


def test_exif_that_cannot_be_written_again_does_not_hide_the_orientation(tmp_path):
    width_as_byte = b"\x01\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00"  # tag, type, count, value
    turned = b"\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00"
    exif = b"Exif\0\0MM\0*\0\0\0\x08\x00\x02" + width_as_byte + turned + b"\0\0\0\0"
    picture = read_picture(saved(tmp_path / "in.jpg", RGB, exif=exif))
    assert (picture.width, picture.height) == (24, 32)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_exif_of_the_shot_is_kept_and_that_of_the_old_file_is_not(tmp_path, suffix):
    exif = Image.Exif()
    exif[0x0110], exif[0x0100] = "Camera", 9999
    exif[0x8769] = {0x829A: 0.01, 0xA002: 9999, 0x927C: b"offsets"}
    copy = copied(saved(tmp_path / "in.jpg", RGB, exif=exif), tmp_path / f"out.{suffix}").getexif()
    assert copy[0x0110] == "Camera" and 0x0100 not in copy
    assert set(copy.get_ifd(0x8769)) == {0x829A}


def test_broken_exif_is_no_obstacle(tmp_path):
    path = saved(tmp_path / "in.jpg", RGB, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff garbage")
    assert read_picture(path).width == 32


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_the_icc_profile_is_kept_byte_for_byte(tmp_path, suffix):
    path = saved(tmp_path / f"in.{suffix}", RGB, icc_profile=SRGB)
    for out in ("out.png", "out.jpg", "out.webp"):
        assert copied(path, tmp_path / out).info["icc_profile"] == SRGB


def test_a_profile_of_another_kind_of_picture_is_left_out(tmp_path):
    other = read_picture(saved(tmp_path / "a.png", RGB, icc_profile=GRAY_PROFILE))
    assert other.metadata.icc is None and "ICC profile is for GRAY" in other.notes[0]
    grey = read_picture(saved(tmp_path / "b.jpg", GREY, icc_profile=GRAY_PROFILE))
    assert grey.metadata.icc == GRAY_PROFILE
    assert write_picture(tmp_path / "b.png", grey) == ()
    assert "grey ICC profile" in write_picture(tmp_path / "b.webp", grey)[0]


def test_cmyk_becomes_rgb(tmp_path):
    image = copied(saved(tmp_path / "in.jpg", Image.fromarray(RGB).convert("CMYK"), quality=100), tmp_path / "out.png")
    assert image.mode == "RGB" and np.abs(np.asarray(image).astype(int) - RGB).mean() < 5


def test_a_cmyk_profile_that_cannot_be_used_is_said(tmp_path):
    broken = SRGB[:16] + b"CMYK" + b"\0" * 200
    path = saved(tmp_path / "in.tif", Image.fromarray(RGB).convert("CMYK"), icc_profile=broken)
    picture = read_picture(path)
    assert picture.metadata.icc is None and "profile cannot be used" in picture.notes[0]


def test_lab_becomes_srgb(tmp_path):
    lab = ImageCms.profileToProfile(
        Image.fromarray(RGB), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    image = copied(saved(tmp_path / "in.tif", lab), tmp_path / "out.png")
    assert np.abs(np.asarray(image).astype(int) - RGB).mean() < 4


def test_mpo_of_a_phone_is_its_first_picture(tmp_path):
    second = Image.fromarray(RGB[:8, :8])
    path = saved(tmp_path / "in.jpg", Image.fromarray(RGB), format="MPO", save_all=True, append_images=[second])
    assert read_picture(path).width == 32


def bad_files() -> dict[str, bytes]:
    png, gif = BytesIO(), BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(png, "PNG")
    Image.fromarray(GREY).save(gif, "GIF", save_all=True, append_images=[Image.fromarray(255 - GREY)])
    return {
        "empty.png": b"",
        "text.png": b"not a picture",
        "cut.png": png.getvalue()[:3000],
        "header.png": png.getvalue()[:30],
        "moving.gif": gif.getvalue(),
    }


@pytest.mark.parametrize(
    "name, message",
    [
        ("empty.png", "is empty"),
        ("text.png", "is not a picture of a known kind"),
        ("cut.png", "is damaged or cut short"),
        ("header.png", "empty|damaged|known kind"),
        ("moving.gif", "has 2 frames, and only still pictures .* take them out into a folder"),
    ],
)
def test_bad_files_are_refused_by_name(tmp_path, name, message):
    (tmp_path / name).write_bytes(bad_files()[name])
    with pytest.raises(ImageError, match=message) as refusal:
        read_picture(tmp_path / name)
    assert name in str(refusal.value) and "\n" not in str(refusal.value)


def test_missing_folders_pipes_and_locked_files_are_refused(tmp_path, monkeypatch):
    with pytest.raises(ImageError, match="does not exist"):
        read_picture(tmp_path / "none.png")
    with pytest.raises(ImageError, match="is a folder"):
        read_picture(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.png")
        with pytest.raises(ImageError, match="not a regular file"):
            read_picture(tmp_path / "pipe.png")
    path = saved(tmp_path / "in.png", RGB)

    def locked(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Image, "open", locked)
    with pytest.raises(ImageError, match="permission denied"):
        read_picture(path)


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    path = saved(tmp_path / "bomb.png", RGB)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    with pytest.raises(ImageError, match=r"bomb\.png claims more than 0 million pixels"):
        read_picture(path)


@pytest.mark.parametrize(
    "name, message", [("out.gif", "are written as"), ("out", "no suffix"), ("no/out.png", "does not")]
)
def test_outputs_that_cannot_be_are_refused_early(tmp_path, name, message):
    with pytest.raises(ImageError, match=message):
        check_output(tmp_path / name)


def test_a_format_that_ends_before_the_size_is_refused(tmp_path):
    check_output(tmp_path / "out.png", (20000, 8))
    with pytest.raises(ImageError, match="WEBP ends at 16383"):
        check_output(tmp_path / "out.webp", (20000, 8))


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch, error):
    picture, out = read_picture(saved(tmp_path / "in.png", RGB)), tmp_path / "out.png"
    out.write_bytes(b"precious")

    def half_written(self, file, **options):
        file.write(b"half")
        raise error

    monkeypatch.setattr(Image.Image, "save", half_written)
    with pytest.raises(ImageError if isinstance(error, OSError) else KeyboardInterrupt):
        write_picture(out, picture)
    assert out.read_bytes() == b"precious"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.png", "out.png"]


def test_a_link_stays_a_link(tmp_path):
    picture = read_picture(saved(tmp_path / "in.png", RGB))
    (tmp_path / "real.png").write_bytes(b"old")
    (tmp_path / "link.png").symlink_to(tmp_path / "real.png")
    write_picture(tmp_path / "link.png", picture)
    assert (tmp_path / "link.png").is_symlink()
    assert Image.open(tmp_path / "real.png").size == (32, 24)


def test_nan_never_becomes_a_picture(tmp_path):
    with pytest.raises(NonFiniteError):
        write_picture(tmp_path / "out.png", Picture(torch.full((1, 3, 4, 4), float("nan"))))
    assert not (tmp_path / "out.png").exists()


def test_every_read_suffix_has_a_format():
    Image.init()
    assert {Image.registered_extensions()[s] for s in READ_SUFFIXES} == set(READ_FORMATS)
    assert ".jfif" in READ_SUFFIXES


@pytest.mark.parametrize("orientation", [2, 3, 4, 5, 6, 7, 8])
def test_a_single_pixel_can_be_turned(tmp_path: Path, orientation: int) -> None:
    """NumPy holds a reversed axis of one pixel for contiguous, and PyTorch does not take it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (1, 1), (255, 0, 51)).save(tmp_path / "one.png", exif=exif)
    assert torch.allclose(read_picture(tmp_path / "one.png").rgb.flatten(), torch.tensor([1.0, -1.0, -0.6]))
