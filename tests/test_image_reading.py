"""X-rays and masks from PNG, JPEG and DICOM files: what becomes of their grey values, and what is refused."""

import io

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

from isnet_bench.data.images import reading as images
from isnet_bench.io.errors import BenchError

RNG = np.random.default_rng(0)
RAMP = np.arange(400).reshape(20, 20)
GREY = RNG.integers(0, 256, (20, 30), dtype=np.uint8)


def save(array, path, **options):
    Image.fromarray(array).save(path, **options)
    return path


def dicom(path, stored, kind="MONOCHROME2", **tags):
    """Write a DICOM file with uint16 or int16 pixels, 12 bits of which count."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.Rows, dataset.Columns = stored.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, kind
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    dataset.PixelData = stored.tobytes()
    for name, value in tags.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


def windowed(values):
    """What the module's documentation promises, written otherwise."""
    low, high = np.quantile(values, 0.005), np.quantile(values, 0.995)
    return np.interp(values, [low, high], [0, 255]).round()


def test_all_bit_depths_are_read_by_one_rule(tmp_path):
    dim = (GREY // 8 + 90).astype(np.uint8)
    files = [
        save(dim, tmp_path / "a.png"),
        save(dim.astype(np.uint16) * 257, tmp_path / "b.png"),
        dicom(tmp_path / "c.dcm", dim.astype(np.uint16) * 16),
    ]
    for file in files:
        np.testing.assert_allclose(images.read(file), windowed(dim), atol=1)


def test_eight_bits_keep_their_values_where_that_is_asked_for(tmp_path):
    dim = (GREY // 8 + 90).astype(np.uint8)
    for values in (GREY, dim):
        np.testing.assert_array_equal(images.read(save(values, tmp_path / "a.png"), windowed=False), values)


def test_jpeg_is_read_whatever_its_name_says(tmp_path):
    smooth = (RAMP * 255 / 399).astype(np.uint8)
    for name in ("a.jpg", "b.jpeg", "c.png"):
        path = save(smooth, tmp_path / name, format="JPEG", quality=95)
        assert np.abs(images.read(path, windowed=False).astype(int) - smooth).max() <= 6


def test_colours_become_their_luminance(tmp_path):
    colour = np.zeros((2, 3, 3), np.uint8)
    colour[:, 0, 0] = colour[:, 1, 1] = colour[:, 2, 2] = 200
    found = images.read(save(colour, tmp_path / "a.png"), windowed=False)
    np.testing.assert_allclose(found[0], 200 * np.array([0.299, 0.587, 0.114]), atol=1)
    alpha = np.dstack([np.full((2, 2, 3), 80, np.uint8), np.zeros((2, 2), np.uint8)])
    assert (images.read(save(alpha, tmp_path / "b.png"), windowed=False) == 80).all()


@pytest.mark.parametrize("brightest", [4095, 65535])
def test_sixteen_bits_are_windowed(tmp_path, brightest):
    values = (RAMP * brightest // 399).astype(np.uint16)
    values[0, 0] = 0
    found = images.read(save(values, tmp_path / "a.png"))
    assert found.dtype == np.uint8
    np.testing.assert_allclose(found, windowed(values), atol=1)
    assert (found.min(), found.max()) == (0, 255)


def test_an_outlier_of_sixteen_bits_does_not_darken_the_rest(tmp_path):
    values = (1000 + RAMP).astype(np.uint16)
    values[3, 3] = 65535
    found = images.read(save(values, tmp_path / "a.png"))
    assert found[3, 3] == 255
    assert 100 < np.median(found) < 155


def test_a_blank_image_is_black(tmp_path):
    assert not images.read(save(np.full((5, 5), 700, np.uint16), tmp_path / "a.png")).any()


@pytest.mark.parametrize("name", ["a.dcm", "without_suffix"])
def test_dicom_is_windowed(tmp_path, name):
    values = (RAMP * 10).astype(np.uint16)
    np.testing.assert_allclose(images.read(dicom(tmp_path / name, values)), windowed(values), atol=1)


def test_monochrome1_is_inverted(tmp_path):
    values = (RAMP * 10).astype(np.uint16)
    found = images.read(dicom(tmp_path / "a.dcm", values, "MONOCHROME1"))
    np.testing.assert_allclose(found, windowed(-values.astype(int)), atol=1)


def test_an_inverse_presentation_table_is_that_of_monochrome1(tmp_path):
    values = (RAMP * 10).astype(np.uint16)
    table = {"PresentationLUTShape": "INVERSE"}
    found = images.read(dicom(tmp_path / "a.dcm", values, "MONOCHROME1", **table))
    np.testing.assert_allclose(found, windowed(-values.astype(int)), atol=1)
    with pytest.raises(BenchError, match="it is MONOCHROME2 with an inverse presentation table, so what is bright in"):
        images.read(dicom(tmp_path / "b.dcm", values, **table))


def test_rescale_slope_and_intercept_are_applied(tmp_path):
    values = (RAMP * 10).astype(np.uint16)
    falling = images.read(dicom(tmp_path / "a.dcm", values, RescaleSlope="-2", RescaleIntercept="100"))
    np.testing.assert_allclose(falling, windowed(100.0 - 2 * values.astype(float)), atol=1)
    rising = images.read(dicom(tmp_path / "b.dcm", values, RescaleSlope="0.5", RescaleIntercept="-1024"))
    np.testing.assert_allclose(rising, windowed(values), atol=1)


def test_a_table_of_grey_values_is_applied(tmp_path):
    item = pydicom.Dataset()
    item.LUTDescriptor, item.ModalityLUTType = [400, 0, 16], "US"
    item.LUTData = [int(value) for value in np.arange(400)[::-1] ** 2 // 3]
    item["LUTDescriptor"].VR = item["LUTData"].VR = "US"
    found = images.read(dicom(tmp_path / "a.dcm", RAMP.astype(np.uint16), ModalityLUTSequence=[item]))
    np.testing.assert_allclose(found, windowed((399 - RAMP) ** 2 // 3), atol=1)


@pytest.mark.parametrize(("kind", "padding"), [("MONOCHROME2", -2000), ("MONOCHROME1", 30000)])
def test_padding_does_not_count_and_is_black(tmp_path, kind, padding):
    values = RAMP.astype(np.int16)
    padded = np.pad(values, 20, constant_values=padding)
    found = images.read(dicom(tmp_path / "a.dcm", padded, kind, PixelPaddingValue=padding))
    sign = 1 if kind == "MONOCHROME2" else -1
    np.testing.assert_allclose(found[20:-20, 20:-20], windowed(sign * values.astype(int)), atol=1)
    assert not found[:20].any()


def test_colour_dicom_becomes_its_luminance(tmp_path):
    colour = np.full((4, 6, 3), (10, 200, 30), np.uint8)
    path = dicom(
        tmp_path / "a.dcm", np.zeros((4, 6), np.uint16), "RGB", SamplesPerPixel=3, PlanarConfiguration=0,
        BitsAllocated=8, BitsStored=8, HighBit=7, PixelData=colour.tobytes(),
    )  # fmt: skip
    np.testing.assert_array_equal(images.read(path, windowed=False), np.asarray(Image.fromarray(colour).convert("L")))


def test_images_are_turned_as_their_exif_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(GREY, tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(images.read(path, windowed=False), np.rot90(GREY, -1))
    np.testing.assert_array_equal(images.read_mask(path), np.rot90(GREY > 127, -1))


def png_bytes(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("read", [images.read, images.read_mask])
@pytest.mark.parametrize("share", [0, 0.01, 0.1, 0.5, 0.9])
def test_truncated_png_is_refused(tmp_path, read, share):
    content = png_bytes(RNG.integers(0, 256, (60, 60), dtype=np.uint8))
    path = tmp_path / "cut.png"
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(BenchError, match=r"cut\.png cannot be read as PNG, JPEG, WebP or DICOM image .+: replace the"):
        read(path)


def test_truncated_jpeg_is_refused(tmp_path):
    path = save(RNG.integers(0, 256, (80, 80), dtype=np.uint8), tmp_path / "cut.jpg")
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(BenchError, match=r"cut\.jpg cannot be read"):
        images.read(path)


def test_damaged_png_is_refused(tmp_path):
    content = bytearray(png_bytes(RNG.integers(0, 256, (60, 60), dtype=np.uint8)))
    content[200:260] = bytes(60)
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(BenchError, match=r"a\.png cannot be read"):
        images.read(tmp_path / "a.png")


@pytest.mark.filterwarnings("ignore:Expected implicit VR")
@pytest.mark.parametrize("name", ["page.png", "page.dcm", "page"])
@pytest.mark.parametrize("content", [b"<html>Not found</html>", b"", b"\0" * 128 + b"DICM", b"\0" * 128 + b"DICM" * 9])
def test_what_is_no_image_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BenchError, match=rf"{name} cannot be read as PNG, JPEG, WebP or DICOM image \(.+\)"):
        images.read(tmp_path / name)


def test_other_formats_are_refused(tmp_path):
    with pytest.raises(BenchError, match=r"a\.gif cannot be read as PNG"):
        images.read(save(GREY, tmp_path / "a.gif"))


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_truncated_dicom_is_refused(tmp_path, share):
    path = dicom(tmp_path / "cut.dcm", RAMP.astype(np.uint16))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(BenchError, match=r"cut\.dcm cannot be read"):
        images.read(path)


def test_dicom_without_pixels_is_refused(tmp_path):
    path = dicom(tmp_path / "a.dcm", RAMP.astype(np.uint16))
    dataset = pydicom.dcmread(path)
    del dataset.PixelData
    dataset.save_as(path)
    with pytest.raises(BenchError, match=r"a\.dcm cannot be read"):
        images.read(path)


def test_several_frames_are_refused(tmp_path):
    frames = np.stack([RAMP, RAMP]).astype(np.uint16)
    with pytest.raises(BenchError, match=r"a\.dcm cannot be read .*it holds 2 frames"):
        images.read(dicom(tmp_path / "a.dcm", frames, NumberOfFrames=2))
    Image.fromarray(GREY).save(tmp_path / "b.png", save_all=True, append_images=[Image.fromarray(255 - GREY)])
    with pytest.raises(BenchError, match=r"b\.png cannot be read .*it holds 2 frames"):
        images.read(tmp_path / "b.png")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BenchError, match=r"none\.png cannot be read"):
        images.read(tmp_path / "none.png")


LUNGS = np.zeros((8, 10), np.uint8)
LUNGS[2:6, 1:4], LUNGS[2:6, 6:9] = 1, 2


@pytest.mark.parametrize(
    "stored",
    [
        LUNGS,
        255 * (LUNGS > 0),
        100 * LUNGS,
        (65535 * (LUNGS > 0)).astype(np.uint16),
        LUNGS.astype(np.uint16),
        LUNGS > 0,
    ],
    ids=["parts", "white", "grey parts", "16 bits", "16 bits, parts", "1 bit"],
)
def test_all_of_a_mask_is_foreground(tmp_path, stored):
    stored = stored if stored.dtype in (bool, np.uint16) else stored.astype(np.uint8)
    found = images.read_mask(save(stored, tmp_path / "a.png"))
    assert found.dtype == bool
    np.testing.assert_array_equal(found, LUNGS > 0)


def test_palette_masks_count_by_number_not_by_colour(tmp_path):
    mask = Image.fromarray(LUNGS, "P")
    mask.putpalette([0, 0, 0, 0, 0, 90, 255, 255, 255])
    mask.save(tmp_path / "a.png")
    np.testing.assert_array_equal(images.read_mask(tmp_path / "a.png"), LUNGS > 0)


def test_noise_of_compression_is_no_foreground(tmp_path):
    large = np.kron(255 * (LUNGS > 0), np.ones((7, 7))).astype(np.uint8)
    path = save(large, tmp_path / "a.jpg", quality=60)
    assert len(np.unique(np.asarray(Image.open(path)))) > 10
    np.testing.assert_array_equal(images.read_mask(path), large > 0)


def test_a_black_mask_has_no_foreground(tmp_path):
    assert not images.read_mask(save(np.zeros((4, 4), np.uint8), tmp_path / "a.png")).any()


@pytest.mark.parametrize("size", [16, 64])
def test_resizing_keeps_the_whole_frame(size):
    frame = np.full((32, 48), 60, np.uint8)
    frame[:4], frame[-4:], frame[:, :6], frame[:, -6:] = 250, 250, 250, 250
    found = images.resize(frame, size)
    assert (found.shape, found.dtype) == ((size, size), np.uint8)
    width = size // 8
    for border in (found[: width - 1], found[1 - width :], found[:, : width - 1], found[:, 1 - width :]):
        assert border.min() > 200
    assert np.abs(found[width + 1 : -width - 1, width + 1 : -width - 1].astype(int) - 60).max() <= 1


def test_resized_masks_stay_binary_and_keep_their_area():
    mask = np.zeros((100, 120), bool)
    mask[13:77, 21:90] = True
    for size in (32, 200):
        found = images.resize_mask(mask, size)
        assert set(np.unique(found)) == {0, 1}
        assert found.mean() == pytest.approx(mask.mean(), abs=0.03)
    np.testing.assert_array_equal(images.resize_mask(mask[:100, :100], 100), mask[:100, :100])


TRIMAP = np.repeat(np.array([[3, 2, 1]], np.uint8), 4, axis=0)
SHAPE = np.repeat(np.repeat(np.array([[0, 1, 0, 0]], np.uint8), 4, axis=0), 3, axis=1)


@pytest.mark.parametrize(
    ("stored", "sentence"),
    [
        # The Oxford pets': 1 is the animal, 2 the background, 3 what lies between.
        (TRIMAP, "its values are 1, 2, 3, of which none is 0; let mask_values name the values of the foreground"),
        # Organs as grey values, and two colours of different brightness.
        (np.repeat(np.array([[0, 60, 120, 240]], np.uint8), 4, axis=0), "between dark and bright, with the value 60"),
        (np.dstack([255 * SHAPE, 0 * SHAPE, 255 * SHAPE[:, ::-1]]), "between dark and bright, with the value 29"),
    ],
)
def test_masks_that_may_be_read_in_several_ways_are_refused(tmp_path, stored, sentence):
    path = save(stored, tmp_path / "a.png")
    with pytest.raises(BenchError, match=rf"a\.png does not tell what is foreground: .*{sentence}"):
        images.read_mask(path)


def test_values_of_the_foreground_may_be_named(tmp_path):
    path = save(TRIMAP, tmp_path / "a.png")
    np.testing.assert_array_equal(images.read_mask(path, [1]), TRIMAP == 1)
    np.testing.assert_array_equal(images.read_mask(path, [1, 3]), TRIMAP != 2)
    palette = Image.fromarray(TRIMAP, "P")
    palette.putpalette([0, 0, 0, 255, 255, 255, 90, 90, 90, 1, 1, 1])
    palette.save(tmp_path / "b.png")
    np.testing.assert_array_equal(images.read_mask(tmp_path / "b.png", [1]), TRIMAP == 1)


def test_a_mask_may_be_in_its_transparency(tmp_path):
    white = np.full((*SHAPE.shape, 3), 255, np.uint8)
    opaque = np.full(SHAPE.shape, 255, np.uint8)
    cases = {
        "in alpha alone": np.dstack([white, 255 * SHAPE]),
        "opaque": np.dstack([white * SHAPE[..., None], opaque]),
        "in both": np.dstack([white * SHAPE[..., None], 255 * SHAPE]),
    }
    for name, stored in cases.items():
        np.testing.assert_array_equal(images.read_mask(save(stored, tmp_path / f"{name}.png")), SHAPE > 0)
    with pytest.raises(BenchError, match="its transparency and its colours differ"):
        images.read_mask(save(np.dstack([white * SHAPE[..., None], 255 * SHAPE[:, ::-1]]), tmp_path / "a.png"))
