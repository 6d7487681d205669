"""Photographs from PNG, JPEG and WebP files: colours, bit depth, transparency and orientation."""

import numpy as np
import pytest
from PIL import Image
from xray_collection import save

from isnet_bench.data.images import reading
from isnet_bench.io.errors import BenchError

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
GREY = COLOURS[:, :, 0]


def save_as(array, path, **options):
    Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.webp"])
def test_colours_are_those_of_the_file(tmp_path, name):
    path = save_as(COLOURS, tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
    np.testing.assert_array_equal(reading.read_photograph(path), COLOURS)
    luminance = COLOURS @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(reading.read_photograph(path, color=False), luminance, atol=1)


def test_a_jpeg_is_like_what_was_saved(tmp_path):
    smooth = np.asarray(Image.fromarray(COLOURS[:5, :5]).resize((40, 40), Image.Resampling.BICUBIC))
    found = reading.read_photograph(save_as(smooth, tmp_path / "a.jpg", quality=95, subsampling=0))
    assert np.abs(found.astype(int) - smooth).mean() < 3


def test_of_sixteen_bits_the_upper_eight_are_kept(tmp_path):
    low = RNG.integers(0, 256, GREY.shape)
    path = save_as((GREY.astype(np.uint16) * 256 + low).astype(np.uint16), tmp_path / "a.png")
    np.testing.assert_array_equal(reading.read_photograph(path), np.dstack([GREY] * 3))
    # What shows little contrast stays so: X-rays are windowed, photographs are not.
    path = save_as(np.full((9, 9), 70 * 256, np.uint16), tmp_path / "b.png")
    assert (reading.read_photograph(path, color=False) == 70).all()


def test_what_is_transparent_is_shown_on_white_unless_the_photograph_is_cut_out(tmp_path):
    alpha = np.zeros(GREY.shape, np.uint8)
    alpha[:, :10], alpha[:, 10:20] = 255, 51
    path = save_as(np.dstack([COLOURS, alpha]), tmp_path / "a.png")
    shown = reading.read_photograph(path)
    np.testing.assert_array_equal(shown[:, :10], COLOURS[:, :10])
    np.testing.assert_allclose(shown[:, 10:20], 0.2 * COLOURS[:, 10:20] + 0.8 * 255, atol=1)
    assert (shown[:, 20:] == 255).all()
    np.testing.assert_array_equal(reading.read_photograph(path, cut_out=True), COLOURS)
    np.testing.assert_array_equal(reading.read_transparency(path), alpha >= 128)


def test_palettes_become_colours(tmp_path):
    palette = Image.fromarray((GREY > 99).astype(np.uint8)).convert("P")
    palette.putpalette([10, 20, 30, 200, 100, 0])
    palette.save(tmp_path / "a.png")
    expected = np.where(GREY[:, :, None] > 99, [200, 100, 0], [10, 20, 30])
    np.testing.assert_array_equal(reading.read_photograph(tmp_path / "a.png"), expected)


def test_a_photograph_is_turned_as_its_camera_was(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save_as(COLOURS, tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(reading.read_photograph(path), np.rot90(COLOURS, -1))


@pytest.mark.parametrize("name", ["a.png", "a.webp"])
def test_what_is_damaged_is_refused(tmp_path, name):
    path = save_as(COLOURS, tmp_path / name)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(BenchError, match="cannot be read as PNG, JPEG, WebP or DICOM image"):
        reading.read_photograph(path)


def test_masks_may_be_webp(tmp_path):
    mask = np.where(GREY > 99, 255, 0).astype(np.uint8)
    save(mask, tmp_path / "a.png")
    path = save_as(np.dstack([mask] * 3), tmp_path / "a.webp", lossless=True)
    np.testing.assert_array_equal(reading.read_mask(path), reading.read_mask(tmp_path / "a.png"))


def test_the_largest_square_in_the_middle_is_kept():
    # By hand: of 2 x 4 pixels the middle two columns, each pixel by itself.
    wide = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.uint8)
    np.testing.assert_array_equal(reading.resize(wide, 2, crop=True), [[2, 3], [6, 7]])
    np.testing.assert_array_equal(reading.resize(wide.T.copy(), 2, crop=True), [[2, 6], [3, 7]])
    np.testing.assert_array_equal(reading.resize_mask(wide > 2, 2, crop=True), [[0, 1], [1, 1]])
    # Of an odd number of columns that are left over, the one more is at the right.
    np.testing.assert_array_equal(reading.resize(np.array([[1, 2, 3, 4]] * 3, np.uint8), 3, crop=True)[0], [1, 2, 3])
