"""Pictures: which way is up, how large is a pixel, and what eight bits can hold."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image as pillow  # noqa: N813
from PIL.PngImagePlugin import PngInfo

from nfops.errors import InputError, MemoryLimitError, ResultError, UsageError
from nfops.grid import Grid
from nfops.image import Header, Image
from nfops.io import PictureFrame, Reading, SaveOptions, describe_image, load_image, save_image

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20  # three rows, four columns
AXIAL = Reading(PictureFrame(("L", "P"), (1.2, 0.8)))


def write(path, pixels=GREY, **settings):
    pillow.fromarray(pixels).save(path, **settings)
    return path


def pixels_of(path):
    with pillow.open(path) as picture:
        return np.asarray(picture)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "A.TIFF"])
def test_i_runs_along_rows_and_j_down_columns(tmp_path, name):
    image = load_image(write(tmp_path / name), AXIAL)
    assert image.values.shape == (1, 4, 3, 1)
    assert image.values[0, 2, 1, 0] == GREY[1, 2]
    assert np.allclose(image.grid.spacing_mm, [1.2, 0.8, 1])
    assert np.allclose(image.grid.centre_mm, 0)
    assert image.grid.orientation == "LPS"
    assert image.header.is_oriented
    assert (image.header.ndim, image.header.slice_axis, image.header.warnings) == (2, 2, ())


@pytest.mark.parametrize(
    ("axes", "orientation"), [(("P", "I"), "PIR"), (("L", "I"), "LIA"), (("A", "S"), "ASR"), (("R", "A"), "RAS")]
)
def test_the_third_axis_is_what_is_left(tmp_path, axes, orientation):
    assert load_image(write(tmp_path / "a.png"), Reading(PictureFrame(axes, (1, 1)))).grid.orientation == orientation


@pytest.mark.parametrize("axes", [("L", "R"), ("L", "X"), ("L",)])
def test_axes_without_sense(axes):
    with pytest.raises(UsageError, match="picture axes"):
        PictureFrame(axes)


def test_spacing_override_then_file_then_recipe_then_a_guess(tmp_path):
    stated, silent = write(tmp_path / "a.png", dpi=(25.4, 12.7)), write(tmp_path / "b.png")
    spacings = {
        (stated, PictureFrame(pixel_mm=(3, 3), pixel_mm_is_override=True)): [3, 3],
        (stated, PictureFrame(pixel_mm=(3, 3))): [1, 2],
        (silent, PictureFrame(pixel_mm=(3, 3))): [3, 3],
        (silent, PictureFrame()): [1, 1],
    }
    for (path, frame), expected in spacings.items():
        image = load_image(path, Reading(frame))
        assert np.allclose(image.grid.spacing_mm[:2], expected, atol=1e-3)
        assert image.header.is_oriented == (not image.header.warnings)
    assert "1 mm is assumed" in image.header.warnings[0]
    assert load_image(stated).header.is_oriented is False


@pytest.mark.parametrize("dpi", [72, 96, 300])
def test_densities_of_screens_and_paper_are_not_believed(tmp_path, dpi):
    for name in ("a.png", "a.tif"):
        assert load_image(write(tmp_path / name, dpi=(dpi, dpi)), AXIAL).grid.spacing_mm[0] == 1.2


@pytest.mark.parametrize("name", ["o.png", "o.tif"])
def test_values_and_spacing_survive_a_round_trip(tmp_path, name):
    image = load_image(write(tmp_path / "a.png"), AXIAL)
    assert save_image(tmp_path / name, image) == ()
    again = load_image(tmp_path / name, Reading(PictureFrame()))
    assert np.array_equal(again.values, image.values)
    assert np.allclose(again.grid.affine, image.grid.affine, rtol=1e-6)
    with pillow.open(tmp_path / name) as picture:
        assert picture.info["dpi"][0] == pytest.approx(25.4 / 1.2, rel=1e-3)


def test_sixteen_bit_stays_sixteen_bit_with_same(tmp_path):
    image = load_image(write(tmp_path / "a.png", GREY.astype(np.uint16) * 250), AXIAL)
    assert image.header.file_dtype == "uint16"
    assert image.values.max() == 55000
    for name in ("o.png", "o.tif"):
        save_image(tmp_path / name, image, SaveOptions("same"))
        assert np.array_equal(load_image(tmp_path / name, AXIAL).values, image.values)


def test_colours_are_three_channels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (3, 4, 3), dtype=np.uint8)
    image = load_image(write(tmp_path / "a.png", pixels), AXIAL)
    assert image.values.shape == (3, 4, 3, 1)
    assert image.header.is_colour
    save_image(tmp_path / "o.png", image)
    assert np.array_equal(pixels_of(tmp_path / "o.png"), pixels)


def test_alpha_is_dropped_with_a_warning(tmp_path):
    for mode, channels in (("LA", 1), ("RGBA", 3)):
        pillow.fromarray(GREY).convert(mode).save(tmp_path / "a.png")
        image = load_image(tmp_path / "a.png", AXIAL)
        assert image.channels == channels
        assert np.array_equal(image.values[0, :, :, 0].T, GREY)
        assert image.header.warnings == ("the alpha channel was dropped",)


def test_palettes_are_looked_up(tmp_path):
    grey = pillow.fromarray((GREY // 20).astype(np.uint8))
    grey.putpalette([max(0, 200 - value // 3) for value in range(768)])
    colour = pillow.fromarray((GREY // 20).astype(np.uint8), "L")
    colour.putpalette([value % 256 for value in range(768)])
    grey.save(tmp_path / "g.png")
    colour.save(tmp_path / "c.png")
    assert np.array_equal(load_image(tmp_path / "g.png", AXIAL).values[0, :, :, 0].T, 200 - GREY // 20)
    assert load_image(tmp_path / "c.png", AXIAL).channels == 3


def test_bilevel_pictures_are_0_and_255(tmp_path):
    pillow.fromarray(GREY > 100).save(tmp_path / "a.png")
    assert set(np.unique(load_image(tmp_path / "a.png", AXIAL).values)) == {0, 255}


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_c3_truncated_and_corrupt_pictures(tmp_path, name):
    noise = np.random.default_rng(0).integers(0, 255, (60, 60), dtype=np.uint8)
    settings = {"compression": "tiff_adobe_deflate"} if name.endswith("tif") else {}
    whole = write(tmp_path / name, noise, **settings).read_bytes()
    for length in (4, 20, 60, len(whole) // 2, len(whole) - 15):
        (tmp_path / name).write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"damaged|neither"):
            load_image(tmp_path / name)


def test_c10_a_tiff_with_a_broken_second_page_is_damaged(tmp_path):
    content = bytearray(write(tmp_path / "a.tif").read_bytes())
    (first,) = struct.unpack_from("<I", content, 4)
    (entries,) = struct.unpack_from("<H", content, first)
    struct.pack_into("<I", content, first + 2 + 12 * entries, len(content) + len(content) % 2)
    page = struct.pack("<HHHIII", 1, 262, 3, 1, 1, 0)  # it has a colour, but no size
    (tmp_path / "a.tif").write_bytes(content + bytes(len(content) % 2) + page)
    with pytest.raises(InputError, match="damaged picture"):
        load_image(tmp_path / "a.tif")


def test_c5_a_flipped_bit_in_a_png(tmp_path):
    whole = bytearray(write(tmp_path / "a.png").read_bytes())
    whole[whole.index(b"IDAT") + 8] ^= 4
    (tmp_path / "a.png").write_bytes(bytes(whole))
    with pytest.raises(InputError, match="damaged"):
        load_image(tmp_path / "a.png")


def test_c8_suffix_and_content(tmp_path):
    write(tmp_path / "a.png").rename(tmp_path / "b.tif")
    with pytest.raises(InputError, match=r"rename it to \.png"):
        load_image(tmp_path / "b.tif")
    pillow.fromarray(GREY).save(tmp_path / "c.jpg")
    (tmp_path / "c.jpg").rename(tmp_path / "c.png")
    with pytest.raises(InputError, match="neither"):
        load_image(tmp_path / "c.png")


def test_c9_decompression_bombs(tmp_path):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    for size in (12000, 60000):
        header = chunk(b"IHDR", struct.pack(">2I5B", size, size, 8, 0, 0, 0, 0))
        content = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(MemoryLimitError, match="bomb"):
            load_image(tmp_path / "a.png")


def test_pages_and_odd_pixels_are_refused(tmp_path):
    page = pillow.fromarray(GREY)
    page.save(tmp_path / "a.tif", save_all=True, append_images=[page])
    with pytest.raises(InputError, match="2 pages"):
        load_image(tmp_path / "a.tif")
    page.convert("CMYK").save(tmp_path / "b.tif")
    with pytest.raises(InputError, match="CMYK"):
        load_image(tmp_path / "b.tif")


def some(values, **header) -> Image:
    values = np.asarray(values, np.float32).reshape(1, -1, 1, 1)
    return Image(values, Grid(values.shape[1:], np.eye(4)), Header(**header))


def test_values_are_rounded_and_clipping_is_said(tmp_path):
    assert save_image(tmp_path / "a.png", some([-0.4, 0.6, 255.4])) == ()
    assert pixels_of(tmp_path / "a.png").tolist() == [[0, 1, 255]]
    assert "1 values of 0 to 256" in save_image(tmp_path / "b.png", some([0, 256]))[0]
    assert pixels_of(tmp_path / "b.png").tolist() == [[0, 255]]


def test_masks_may_be_written_as_0_and_255(tmp_path):
    save_image(tmp_path / "a.png", some([0, 1, 1]), SaveOptions(mask_255=True))
    assert pixels_of(tmp_path / "a.png").tolist() == [[0, 255, 255]]
    with pytest.raises(ResultError, match="3 labels"):
        save_image(tmp_path / "b.png", some([0, 1, 2]), SaveOptions(mask_255=True))


def test_what_a_picture_cannot_hold(tmp_path):
    with pytest.raises(ResultError, match="NaN"):
        save_image(tmp_path / "a.png", some([0, np.nan]))
    with pytest.raises(UsageError, match="float32"):
        save_image(tmp_path / "a.png", some([0, 1]), SaveOptions("float32"))
    volume = Image(np.zeros((1, 3, 3, 2), np.float32), Grid((3, 3, 2), np.eye(4)))
    with pytest.raises(UsageError, match=r"\.nii\.gz"):
        save_image(tmp_path / "a.png", volume)
    channels = Image(np.zeros((2, 3, 3, 1), np.float32), Grid((3, 3, 1), np.eye(4)))
    with pytest.raises(UsageError, match="channels"):
        save_image(tmp_path / "a.png", channels)
    assert list(tmp_path.iterdir()) == []


def test_a_picture_becomes_a_nifti_slice_and_back(tmp_path):
    image = load_image(write(tmp_path / "a.png"), AXIAL)
    save_image(tmp_path / "o.nii", image)
    again = load_image(tmp_path / "o.nii")
    assert np.array_equal(again.values, image.values)
    assert again.grid.same_as(image.grid)


def test_describe(tmp_path):
    described = describe_image(write(tmp_path / "a.png"), AXIAL)
    assert described["shape"] == [4, 3, 1]
    assert described["intensity_range"] == [0, 220]
    assert (described["orientation"], described["dtype"], described["channels"]) == ("LPS", "uint8", 1)


def test_sixteen_bit_colours_are_refused_not_halved(tmp_path):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header, data = struct.pack(">2I5B", 2, 1, 16, 2, 0, 0, 0), zlib.compress(bytes(13))
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    with pytest.raises(InputError, match="16 bit"):
        load_image(tmp_path / "a.png")


def test_text_that_is_no_spacing_is_passed_over(tmp_path):
    text = PngInfo()
    text.add_text("pixel_mm", "wide")
    assert load_image(write(tmp_path / "a.png", pnginfo=text), AXIAL).grid.spacing_mm[0] == 1.2
