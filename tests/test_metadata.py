"""What a file carried: texts, EXIF, XMP, resolution and colours, through each format and from one to another."""

from __future__ import annotations

import json
import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from fmboost_core.imaging import icc, ifd, infotext
from fmboost_core.imaging.exif import Exif, read_exif
from fmboost_core.imaging.metadata import Metadata
from fmboost_core.imaging.picture import Picture
from fmboost_core.imaging.png import Chunk, read_png, texts_of, with_chunks
from fmboost_core.imaging.read import read_picture
from fmboost_core.imaging.write import write_picture

RGB = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
RECIPE = "a cup of tea, ☕\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 512x512"
GRAPHS = {"prompt": json.dumps({"3": {"class_type": "KSampler", "inputs": {"text": "ü"}}}), "workflow": '{"nodes": []}'}
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="1" xmp:Rating="4"/></x:xmpmeta>'
STEP = {"Postprocess upscaler": "FMBoost sd15-x2", "Postprocess upscale to": "32x24", "Postprocess upscale seed": "0"}


def png(path: Path, *chunks: Chunk, image: Image.Image | None = None) -> Path:
    """A PNG with chunks behind its header."""
    whole = BytesIO()
    (image or Image.fromarray(RGB)).save(whole, "PNG")
    path.write_bytes(with_chunks(whole.getvalue(), chunks))
    return path


def text(keyword: str, value: str) -> Chunk:
    return Chunk(b"tEXt", keyword.encode() + b"\0" + value.encode("latin-1"))


def international(keyword: str, value: str, packed: bool = False) -> Chunk:
    body = zlib.compress(value.encode()) if packed else value.encode()
    return Chunk(b"iTXt", keyword.encode() + (b"\0\1\0" if packed else b"\0\0\0") + b"\0\0" + body)


def generated(path: Path) -> Path:
    """A PNG as both hosts write it."""
    return png(path, international("parameters", RECIPE), *(text(k, v) for k, v in GRAPHS.items()))


def chunks_of(path: Path) -> tuple[Chunk, ...]:
    found = read_png(path.read_bytes())
    assert found is not None
    return found.chunks


def texts(path: Path) -> dict[str, str | None]:
    """The texts of a PNG as Pillow, and so the hosts, read them."""
    with Image.open(path) as image:
        image.load()
        return dict(image.text)  # type: ignore[attr-defined]


def user_comment(path: Path) -> str:
    """As AUTOMATIC1111 reads it (piexif: always big-endian)."""
    with Image.open(path) as image:
        found = image.getexif().get_ifd(0x8769)[0x9286]
    assert found.startswith(b"UNICODE\0")
    return found[8:].decode("utf-16-be")


# --- texts


def test_texts_of_a_png_stay_byte_for_byte(tmp_path):
    kept = (
        text("workflow", GRAPHS["workflow"]), international("prompt", "ü", packed=True), text("Author", "Müller"),
        Chunk(b"zTXt", b"long\0\0" + zlib.compress(b"word " * 1000)), international("parameters", RECIPE),
    )  # fmt: skip
    assert write_picture(tmp_path / "out.png", read_picture(png(tmp_path / "in.png", *kept))) == ()
    assert [c for c in chunks_of(tmp_path / "out.png") if c.kind in (b"tEXt", b"zTXt", b"iTXt")] == list(kept)


def test_a_workflow_beyond_pillows_limit_is_kept(tmp_path):
    big = Chunk(b"zTXt", b"workflow\0\0" + zlib.compress(b'{"nodes": []}' * 200_000))
    write_picture(tmp_path / "out.png", read_picture(png(tmp_path / "in.png", big)))
    assert big in chunks_of(tmp_path / "out.png")


@pytest.mark.parametrize("suffix", ["jpg", "webp", "tif"])
def test_recipes_go_into_exif_as_the_hosts_write_them_and_back(tmp_path, suffix):
    middle = tmp_path / f"middle.{suffix}"
    assert write_picture(middle, read_picture(generated(tmp_path / "in.png"))) == ()
    assert user_comment(middle) == RECIPE
    with Image.open(middle) as image:
        assert image.getexif()[0x0110] == "prompt:" + GRAPHS["prompt"]
        assert image.getexif()[0x010F] == "workflow:" + GRAPHS["workflow"]
    write_picture(tmp_path / "back.png", read_picture(middle))
    assert texts(tmp_path / "back.png") == {"parameters": RECIPE, **GRAPHS}
    with Image.open(tmp_path / "back.png") as image:
        assert not image.getexif()  # the host would take a recipe there for a newer one


def test_a_recipe_from_the_comment_of_a_gif(tmp_path):
    Image.fromarray(RGB[..., 0]).save(tmp_path / "in.gif", comment=RECIPE.encode())
    write_picture(tmp_path / "out.png", read_picture(tmp_path / "in.gif"))
    assert texts(tmp_path / "out.png") == {"parameters": RECIPE}


def test_texts_without_a_place_are_named(tmp_path):
    picture = read_picture(png(tmp_path / "in.png", text("Author", "M"), text("Odd", "x"), text("Comment", "hello")))
    (note,) = write_picture(tmp_path / "out.jpg", picture)
    assert note == "JPEG has no place for the text Odd"
    with Image.open(tmp_path / "out.jpg") as image:
        assert image.getexif()[0x013B] == "M" and image.info["comment"] == b"hello"
    picture = read_picture(png(tmp_path / "in.png", text("workflow", '{"a": "' + "x" * 70_000 + '"}')))
    assert "no place for the text workflow" in write_picture(tmp_path / "out.jpg", picture)[0]


def test_a_camera_is_not_overwritten_by_a_graph(tmp_path):
    exif = Exif().with_text(0x010F, "Maker")
    picture = read_picture(png(tmp_path / "in.png", text("workflow", "{}"), Chunk(b"eXIf", exif.tobytes()[6:])))
    assert write_picture(tmp_path / "out.jpg", picture) == ("JPEG has no place for the text workflow",)
    with Image.open(tmp_path / "out.jpg") as image:
        assert image.getexif()[0x010F] == "Maker"


# --- the line on the enlargement


def host_parsed(recipe: str) -> tuple[str, dict[str, str]]:
    """The prompt and the settings as AUTOMATIC1111 1.10 parses them (infotext_utils.parse_generation_parameters)."""
    import re

    setting = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
    *lines, last = recipe.strip().split("\n")
    if len(setting.findall(last)) < 3:
        lines.append(last)
        last = ""
    return "\n".join(lines), dict(setting.findall(last))


def test_the_recipe_gains_settings_that_the_host_parses(tmp_path):
    picture = read_picture(generated(tmp_path / "in.png")).with_step(STEP)
    write_picture(tmp_path / "out.png", picture)
    found = texts(tmp_path / "out.png")
    before, after = host_parsed(RECIPE), host_parsed(str(found["parameters"]))
    assert after == (before[0], before[1] | STEP)
    assert {name: found[name] for name in GRAPHS} == GRAPHS
    write_picture(tmp_path / "out.jpg", picture)
    assert user_comment(tmp_path / "out.jpg") == found["parameters"]


def test_a_recipe_without_settings_gets_a_line_of_its_own():
    longer = infotext.with_step("a cup", STEP | {"Odd": 'a "b", c'})
    assert host_parsed(longer) == ("a cup", STEP | {"Odd": '"a \\"b\\", c"'})
    assert infotext.with_step('{"sui_image_params": 1}\n', STEP) == '{"sui_image_params": 1}\n'


def test_a_photograph_gains_no_recipe(tmp_path):
    write_picture(tmp_path / "out.png", read_picture(png(tmp_path / "in.png")).with_step(STEP))
    assert texts(tmp_path / "out.png") == {}


# --- EXIF, XMP, comments, resolution


@pytest.mark.parametrize("out", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_ratings_titles_and_names_stay_byte_for_byte(tmp_path, suffix, out):
    exif = Exif(">", {0x4746: ifd.Field.of(ifd.SHORT, ">", 4)}).with_text(0x013B, "Müller").with_text(0x9C9B, "Tête")
    path = tmp_path / f"in.{suffix}"
    write_picture(path, Picture(read_picture(png(tmp_path / "x.png")).rgb, metadata=Metadata(exif=exif)))
    write_picture(tmp_path / f"out.{out}", read_picture(path))
    with Image.open(tmp_path / f"out.{out}") as image:
        found = image.getexif()
        assert found[0x4746] == 4 and bytes(found[0x9C9B]).decode("utf-16-le") == "Tête\0"
    assert read_picture(tmp_path / f"out.{out}").metadata.exif.text(0x013B) == "Müller"


def test_what_exif_loses_is_said(tmp_path):
    camera = {0x927C: ifd.Field(7, b"maker's own"), 0xA002: ifd.Field.of(ifd.SHORT, "<", 99)}
    main = {0x8769: camera, 0xFDE8: ifd.Field(2, b"odd\0"), 0x0100: ifd.Field.of(ifd.SHORT, "<", 9)}
    found = read_exif(ifd.header("<", 8) + ifd.build(main, "<", 8))
    assert not found.exif and "maker note" in found.notes[0] and "tags 0xFDE8 were left out" in found.notes[1]
    assert "damaged" in read_exif(b"Exif\0\0nothing at all").notes[0]


def test_directories_that_point_at_themselves_end():
    data = ifd.header("<", 8) + struct.pack("<H", 1) + struct.pack("<HHII", 0x8769, 4, 1, 8) + struct.pack("<I", 8)
    assert len(list(ifd.Reader(data, "<").chain())) == 1
    read_exif(data)


@pytest.mark.parametrize("out", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_xmp_and_resolution_are_carried(tmp_path, suffix, out):
    path = tmp_path / f"in.{suffix}"
    write_picture(path, Picture(read_picture(png(tmp_path / "x.png")).rgb, metadata=Metadata(xmp=XMP, dpi=(300, 300))))
    assert write_picture(tmp_path / f"out.{out}", read_picture(path)) == ()
    metadata = read_picture(tmp_path / f"out.{out}").metadata
    assert metadata.xmp == XMP and metadata.dpi == pytest.approx((300, 300), abs=0.01)
    if out != "webp":
        with Image.open(tmp_path / f"out.{out}") as image:
            assert image.info["dpi"] == pytest.approx((300, 300), abs=0.01)


def test_xmp_of_a_turned_picture_is_of_an_upright_one(tmp_path):
    turned = XMP.replace(b'Orientation="1"', b'Orientation="6"')
    picture = read_picture(png(tmp_path / "in.png", international("XML:com.adobe.xmp", turned.decode())))
    assert (picture.width, picture.height) == (12, 16) and picture.metadata.xmp == XMP


def test_jpeg_comments_and_captions_are_kept(tmp_path):
    resource = b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0" + struct.pack(">I", 8) + b"\x1c\x02\x78\0\3abc"
    extra = b"\xff\xed" + struct.pack(">H", len(resource) + 2) + resource
    Image.fromarray(RGB).save(tmp_path / "in.jpg", comment=b"first", extra=extra)
    picture = read_picture(tmp_path / "in.jpg")
    assert write_picture(tmp_path / "out.jpg", picture) == ()
    with Image.open(tmp_path / "out.jpg") as image:
        assert image.info["comment"] == b"first" and image.info["photoshop"][0x0404] == b"\x1c\x02\x78\0\3abc"
    assert write_picture(tmp_path / "out.png", picture) == ("PNG has no place for the IPTC data",)
    assert texts(tmp_path / "out.png") == {"Comment": "first"}


def test_unknown_and_broken_chunks_are_named_and_no_obstacle(tmp_path):
    broken = bytearray(png(tmp_path / "in.png", text("a", "b"), Chunk(b"caBX", b"credentials")).read_bytes())
    broken[broken.index(b"tEXt") + 5] ^= 1
    (tmp_path / "in.png").write_bytes(broken)
    notes = " ".join(read_picture(tmp_path / "in.png").notes)
    assert "damaged PNG chunks tEXt" in notes and "PNG chunks caBX were left out" in notes


def test_exif_that_imagemagick_wrote_turns_the_picture(tmp_path):
    exif = ifd.header("<", 8) + ifd.build({0x0112: ifd.Field.of(ifd.SHORT, "<", 6)}, "<", 8)
    raw = text("Raw profile type exif", f"\nexif\n{len(exif):8d}\n{exif.hex()}\n")
    assert read_picture(png(tmp_path / "in.png", raw)).width == 12


# --- colours


def shown(path: Path) -> np.ndarray:
    """The pixels in sRGB, as a viewer that knows profiles shows them."""
    with Image.open(path) as image:
        profile = image.info.get("icc_profile")
        image = image.convert("RGB")
        if profile is None:
            return np.asarray(image).astype(int)
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        found = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"))
        return np.asarray(found).astype(int)


def gamma(value: float) -> Chunk:
    return Chunk(b"gAMA", struct.pack(">I", round(value * 1e5)))


CHUNKS = {
    "cICP of P3": Chunk(b"cICP", bytes([12, 13, 0, 1])), "gAMA of linear light": gamma(1.0),
    "cHRM of Adobe RGB": Chunk(b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000)),
}  # fmt: skip


@pytest.mark.parametrize("name", CHUNKS)
def test_chunks_of_colours_are_kept_or_become_a_profile(tmp_path, name):
    picture = read_picture(png(tmp_path / "in.png", CHUNKS[name]))
    assert write_picture(tmp_path / "out.png", picture) == ()
    assert CHUNKS[name] in chunks_of(tmp_path / "out.png")
    assert write_picture(tmp_path / "out.webp", picture) == () and picture.lossless
    plain = np.abs(shown(tmp_path / "out.webp") - RGB).mean()
    assert plain > 2  # a viewer shows other colours than those of sRGB
    if "linear" in name:
        light = RGB / 255
        wanted = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055) * 255
        assert np.abs(shown(tmp_path / "out.webp") - wanted).mean() < 1


def test_the_chunks_of_srgb_need_no_profile(tmp_path):
    srgb = Chunk(b"cHRM", struct.pack(">8I", *(round(v * 1e5) for v in icc.SRGB_PRIMARIES)))
    for chunks in ((gamma(0.45455), srgb), (Chunk(b"cICP", bytes([1, 13, 0, 1])),), (Chunk(b"sRGB", b"\0"), gamma(1))):
        write_picture(tmp_path / "out.webp", read_picture(png(tmp_path / "in.png", *chunks)))
        with Image.open(tmp_path / "out.webp") as image:
            assert "icc_profile" not in image.info


def test_hdr_stays_in_png_and_is_said_elsewhere(tmp_path):
    picture = read_picture(png(tmp_path / "in.png", Chunk(b"cICP", bytes([9, 16, 0, 1]))))
    assert write_picture(tmp_path / "out.png", picture) == ()
    assert "only PNG keeps them" in write_picture(tmp_path / "out.jpg", picture)[0]


def test_a_grey_picture_gets_a_grey_profile(tmp_path):
    picture = read_picture(png(tmp_path / "in.png", gamma(1.0), image=Image.fromarray(RGB[..., 0])))
    write_picture(tmp_path / "out.jpg", picture)
    with Image.open(tmp_path / "out.jpg") as image:
        assert image.mode == "L" and image.info["icc_profile"][16:20] == b"GRAY"


def test_profiles_that_cannot_be_are_none():
    assert icc.build_profile((0.3, 0) * 4, (2.2,), False) is None
    assert icc.build_profile((0.3127, 0.329) * 4, (2.2,), False) is None
    assert icc.cicp_profile(b"\1", False) is None


def test_texts_that_cannot_be_read_are_kept_where_they_can_be(tmp_path):
    bomb = Chunk(b"zTXt", b"workflow\0\0" + b"no zlib data")
    picture = read_picture(png(tmp_path / "in.png", bomb))
    assert write_picture(tmp_path / "out.png", picture) == () and bomb in chunks_of(tmp_path / "out.png")
    assert write_picture(tmp_path / "out.webp", picture) == ("WebP has no place for the text workflow",)
    assert [t.value for t in texts_of([bomb])] == [None]
