"""X-rays, photographs and masks as they come: PNG, JPEG, WebP and DICOM files with 8 to 16 bits.

Nothing is equalised or otherwise made prettier: borders, letters and exposure are what a benchmark of background bias
is about.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image, ImageOps
from pydicom.misc import is_dicom
from pydicom.pixels import apply_modality_lut, pixel_array

from isnet_bench.io.errors import BenchError

_FORMATS = ("PNG", "JPEG", "WEBP")
_DICOM_SUFFIXES = (".dcm", ".dicom")
_WHITE = 255
_LARGEST_OF_16_BITS = 65_535
# What is darker or brighter than all but this percentage of the pixels, becomes black or white.
_CLIPPED_PERCENT = 0.5
# Masks with no larger value number their parts (left lung, right lung); with a larger one, they are grey values.
_LARGEST_PART = 15
# One value of more than this share of the pixels, and as far from the darkest, is not that of an edge.
_EDGE = 0.05
_REMEDY = "let mask_values name the values of the foreground"


class _Uncertain(Exception):
    """Why a mask may be read in more than one way."""


def read(path: Path, windowed: bool = True) -> np.ndarray:
    """Read an X-ray, a PNG, JPEG, WebP or DICOM file, as grey values uint8 (H, W) at its own resolution.

    Colours become their luminance. The range from the 0.5th to the 99.5th percentile of the image becomes 0 to 255,
    whatever the file, so that bit depth and format do not tell where it comes from; files with 8 bits keep their values
    where not `windowed`. DICOM files have their modality transform (rescale slope and intercept, or table) before, do
    not count their padding, and are inverted where they are MONOCHROME1, so that air is dark everywhere. DICOM is known
    by its signature or by the suffix .dcm or .dicom. Raises BenchError for a file that cannot be opened, is damaged or
    cut short, holds several frames, or is no image.
    """
    with _sentences(path):
        if is_dicom(path) or path.suffix.lower() in _DICOM_SUFFIXES:
            return _read_dicom(path, windowed)
        with _opened(path) as image:
            if image.mode.startswith(("I", "F")):
                values = np.asarray(image)
                return _window(values, values)
            return _of_eight_bits(image, windowed)


def read_photograph(path: Path, color: bool = True, cut_out: bool = False) -> np.ndarray:
    """Read a photograph, a PNG, JPEG or WebP file, as uint8: (H, W, 3), or its luminance (H, W) where not `color`.

    It is turned as its EXIF data say. Of 16 bits the upper 8 are kept. What is transparent is shown on white, and as it
    is stored where the photograph is `cut_out`, so that its transparency is its mask. Raises as `read`.
    """
    with _sentences(path), _opened(path) as image:
        if image.mode[0] in "IF":
            grey = np.asarray(image)
            if grey.min() < 0 or grey.max() > _LARGEST_OF_16_BITS:
                raise ValueError("its values are not those of 16 bits")
            image = Image.fromarray((grey.astype(np.int64) >> 8).astype(np.uint8))
        elif image.has_transparency_data and not cut_out:
            shown = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown)
        return np.asarray(image.convert("RGB" if color else "L"))


def read_transparency(path: Path) -> np.ndarray:
    """Read as foreground mask, bool (H, W), where a PNG or WebP file is at least half opaque. Raises as `read_mask`."""
    with _sentences(path), _opened(path) as image:
        opaque = np.asarray(image.convert("RGBA").getchannel("A")) >= _WHITE / 2
        if opaque.all():
            raise _Uncertain("nothing in it is transparent; name another file as its mask")
        return opaque


def read_mask(path: Path, values: Collection[int] = ()) -> np.ndarray:
    """Read a foreground mask, a PNG, JPEG or WebP file, as bool (H, W). Raises as `read`, and where it is not certain.

    Foreground is what has one of the `values`, if there are any: palette indices, or grey values as the file has them.
    Without them it is where a mask is at least half as bright as its brightest pixel. Masks whose largest value is 15
    or less, and palette images, number their parts (such as left and right lung): all but 0 is foreground. A mask whose
    colours are all the same is in its transparency. Uncertain are parts of which none is 0, large parts below
    half of the brightest that are not the darkest, and transparency and colours that say different things.
    """
    with _sentences(path), _opened(path) as image:
        if values:
            stored = np.asarray(image if image.mode in ("P", "L", "1") or image.mode[0] in "IF" else image.convert("L"))
            return np.isin(stored, list(values))
        if image.mode in ("RGBA", "LA"):
            return _of_transparency(*np.moveaxis(np.asarray(image.convert("LA")), 2, 0))
        numbered = image.mode == "P"
        return _foreground(np.asarray(image if numbered or image.mode[0] in "IF1" else image.convert("L")), numbered)


def read_pair(
    image: Path, mask: Path, values: Collection[int] = (), windowed: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Read an X-ray and its mask. Raises BenchError as `read_mask`, and if they differ in size."""
    pair = read(image, windowed), read_mask(mask, values)
    same_size(*pair, f"the mask {mask}", f"its image {image}")
    return pair


def same_size(image: np.ndarray, mask: np.ndarray, mask_name: str, image_name: str) -> None:
    """Raise BenchError if an image (H, W, ...) and its mask (H, W) differ in size."""
    sizes = [f"{array.shape[1]} x {array.shape[0]}" for array in (image, mask)]
    if sizes[0] != sizes[1]:
        raise BenchError(f"{mask_name} has {sizes[1]} pixels, and {image_name} {sizes[0]}; resize the mask")


def _of_transparency(grey: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    of_grey, of_alpha = (None if part.min() == part.max() else _foreground(part) for part in (grey, alpha))
    if of_alpha is None:
        return _foreground(grey)
    if of_grey is not None and not np.array_equal(of_grey, of_alpha):
        raise _Uncertain(f"its transparency and its colours differ; {_REMEDY}, or save it without transparency")
    return of_alpha


def _foreground(values: np.ndarray, numbered: bool = False) -> np.ndarray:
    largest = int(values.max())
    found, pixels = np.unique(values, return_counts=True)
    if numbered or largest <= _LARGEST_PART:
        if found[0] > 0 and len(found) > 1:
            raise _Uncertain(f"its values are {', '.join(map(str, found))}, of which none is 0; {_REMEDY}")
        return values > 0
    between = (found > found[0] + largest * _EDGE) & (found < largest / 2) & (pixels > values.size * _EDGE)
    if between.any():
        raise _Uncertain(f"much of it lies between dark and bright, with the value {found[between][0]}; {_REMEDY}")
    return values >= largest / 2


def resize(image: np.ndarray, size: int, crop: bool = False) -> np.ndarray:
    """Bring an image, uint8 (H, W) or (H, W, 3), to (size, size): bilinear with antialiasing.

    It is the whole frame, squashed, or the largest square in its middle where `crop`.
    """
    return _resized(image, size, Image.Resampling.BILINEAR, crop)


def resize_mask(mask: np.ndarray, size: int, crop: bool = False) -> np.ndarray:
    """Bring a mask, bool (H, W), to uint8 (size, size), 1 where half of a pixel's area or more is foreground."""
    return (_resized(mask.astype(np.float32), size, Image.Resampling.BOX, crop) >= 0.5).astype(np.uint8)


def _resized(values: np.ndarray, size: int, how: Image.Resampling, crop: bool) -> np.ndarray:
    image = Image.fromarray(values)
    if crop:
        side = min(image.size)
        left, top = ((length - side) // 2 for length in image.size)
        image = image.crop((left, top, left + side, top + side))
    return np.asarray(image.resize((size, size), how))


@contextmanager
def _sentences(path: Path) -> Iterator[None]:
    try:
        yield
    except _Uncertain as error:
        raise BenchError(f"{path} does not tell what is foreground: {error}") from error
    # For files that are damaged, cut short, or something else, the decoders raise whatever they stumble over.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BenchError(
            f"{path} cannot be read as PNG, JPEG, WebP or DICOM image ({reason}): replace the file, or delete its line"
        ) from error


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    with Image.open(path, formats=_FORMATS) as image:
        frames = getattr(image, "n_frames", 1)
        if frames > 1:
            raise ValueError(f"it holds {frames} frames")
        yield ImageOps.exif_transpose(image)


def _of_eight_bits(image: Image.Image, windowed: bool) -> np.ndarray:
    values = np.asarray(image.convert("L"))
    return _window(values, values) if windowed else values


def _read_dicom(path: Path, windowed: bool) -> np.ndarray:
    dataset = pydicom.dcmread(path)
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1:
        raise ValueError(f"it holds {frames} frames")
    stored = pixel_array(dataset)
    kind = dataset.PhotometricInterpretation
    if stored.ndim == 3 and stored.dtype == np.uint8:
        return _of_eight_bits(Image.fromarray(stored), windowed)
    if not kind.startswith("MONOCHROME"):
        raise ValueError(f"its photometric interpretation is {kind}")
    if kind == "MONOCHROME2" and dataset.get("PresentationLUTShape") == "INVERSE":
        raise ValueError("it is MONOCHROME2 with an inverse presentation table, so what is bright in it is not certain")
    values = apply_modality_lut(stored, dataset).astype(np.float64)
    image = _window(values, values[~_padding(stored, dataset)])
    return _WHITE - image if kind == "MONOCHROME1" else image


def _padding(stored: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    ends = [dataset.get("PixelPaddingValue"), dataset.get("PixelPaddingRangeLimit")]
    ends = [end for end in ends if isinstance(end, int)]
    if not ends:
        return np.zeros(stored.shape, bool)
    return (stored >= min(ends)) & (stored <= max(ends))


def _window(values: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Map the range of the counted values, but for the percentiles at its ends, to 0..255."""
    if not counted.size:
        raise ValueError("all of it is padding")
    low, high = np.percentile(counted, (_CLIPPED_PERCENT, 100 - _CLIPPED_PERCENT))
    if low == high:
        low, high = counted.min(), counted.max()
    scaled = (np.clip(values, low, high) - low) / max(high - low, np.finfo(np.float64).tiny)
    return np.round(scaled * _WHITE).astype(np.uint8)
