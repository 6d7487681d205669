"""Images and masks in files, written and read a few at a time, so that they need not fit into memory."""

from __future__ import annotations

import mmap
import os
import tokenize
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isnet_bench.data.base import Rows, has_mask
from isnet_bench.io.errors import BenchError
from isnet_bench.io.files import UNREADABLE, replacing

Room = Callable[[tuple[int, ...]], np.ndarray]
"""Gives room for an array of a shape, uint8, whose content is to be written."""

_PIECE_BYTES = 2**24
_SCRATCH = ".scratch-"
# What numpy's reader of headers raises besides.
_DAMAGED = (*UNREADABLE, SyntaxError, TypeError, OverflowError, MemoryError, tokenize.TokenError)


def in_memory(shape: tuple[int, ...]) -> np.ndarray:
    """Give room in memory."""
    return np.empty(shape, np.uint8)


class Scratch:
    """Room in files of a folder, which are removed at the end; a folder that is locked anew is cleared of them, too."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: list[Path] = []

    def __enter__(self) -> Scratch:
        return self

    def __exit__(self, *_: object) -> None:
        for path in self._files:
            path.unlink(missing_ok=True)

    def __call__(self, shape: tuple[int, ...]) -> np.ndarray:
        """Give room. Raises BenchError if the disk has none."""
        path = self.folder / f"{_SCRATCH}{len(self._files)}.{os.getpid()}.npy"
        self._files.append(path)
        try:
            array = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
            # A disk that is full would otherwise kill the process at some later write.
            if hasattr(os, "posix_fallocate"):
                with path.open("r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            raise BenchError(f"{path} cannot be written ({error}): free the space or choose another folder") from error
        return array


def pieces(*arrays: np.ndarray) -> Iterator[slice]:
    """Yield rows of arrays (N, ...) of the same length, so that a piece of each takes 16 MB or less, or is one row.

    What was read or written of a piece leaves memory before the next one.
    """
    step = max(1, _PIECE_BYTES // max(1, *(array[:1].nbytes for array in arrays)))
    for start in range(0, len(arrays[0]), step):
        yield slice(start, start + step)
        for array in arrays:
            release(array)


def release(array: np.ndarray) -> None:
    """Take an array that is a file out of the memory of this process; the system may keep it, and reads it again."""
    owner: Any = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, mmap.mmap):
        owner.madvise(mmap.MADV_DONTNEED)


def save(path: Path, array: np.ndarray) -> None:
    """Write an array as a .npy file; room of `Scratch` in the same folder becomes that file.

    Raises BenchError as `isnet_bench.io.files.replacing`.
    """
    with replacing(path) as temporary:
        if _is_scratch(array, path.parent):
            os.replace(array.filename, temporary)
            return
        described = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": array.shape}
        with temporary.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, described)
            for rows in pieces(array):
                file.write(array[rows].tobytes())


def _is_scratch(array: np.ndarray, folder: Path) -> bool:
    """Say whether an array is all of a scratch file that is still there."""
    if not isinstance(array, np.memmap) or not isinstance(array.base, mmap.mmap):
        return False
    path = Path(str(array.filename))
    return path.name.startswith(_SCRATCH) and path.is_file() and path.parent.samefile(folder)


def opened(path: Path, remedy: str) -> np.ndarray:
    """Return the array of a .npy file, of which only what is looked at is read.

    Raises BenchError, which ends with `remedy`, if the file is missing or damaged.
    """
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise BenchError(f"{path} is missing: {remedy}") from error
    except _DAMAGED as error:
        raise BenchError(f"{path} is damaged ({error}): delete it, then {remedy}") from error


class StoredImages:
    """Images uint8 (N, C, H, W) in a file; indexed like a tensor, it gives images float32 in [0, 1].

    Only what is asked for is read, and each time anew. The file may be replaced meanwhile: this stays the old one.
    """

    def __init__(self, array: np.ndarray) -> None:
        self._array = array
        self.shape = torch.Size(array.shape)

    def __len__(self) -> int:
        return len(self._array)

    def size(self, dimension: int) -> int:
        """Return the length in a dimension."""
        return self.shape[dimension]

    def __getitem__(self, key: Any) -> Tensor:
        return self._read(key).div_(255)

    def _read(self, key: Any) -> Tensor:
        read = np.array(self._array[_of_numpy(key)])
        release(self._array)
        return torch.from_numpy(read).float()


class StoredMasks(StoredImages):
    """Masks uint8 (N, 1, H, W) in a file, as `StoredImages`: float32, 1 = foreground, NaN where an image has no mask.

    `there` says which masks there are, bool (N,); None: those that are not `NO_MASK`.
    """

    def __init__(self, array: np.ndarray, there: Tensor | None = None) -> None:
        super().__init__(array)
        if there is None:
            found = [has_mask(array[rows]) for rows in pieces(array)]
            there = torch.from_numpy(np.concatenate(found))
        self.there = there

    def __getitem__(self, key: Any) -> Tensor:
        masks = self._read(key)
        masks[~self.there[key]] = torch.nan
        return masks

    def only(self, kept: Tensor) -> StoredMasks:
        """Return masks of which only those that are there, and at these indices, are left."""
        left = torch.zeros_like(self.there)
        left[kept] = self.there[kept]
        return StoredMasks(self._array, left)


def masks_there(masks: Rows) -> Tensor:
    """Return which masks (N, 1, H, W) of a split there are, bool (N,), without reading them."""
    return masks.there if isinstance(masks, StoredMasks) else ~masks[:, 0, 0, 0].isnan()


def _of_numpy(key: Any) -> Any:
    return key.numpy() if isinstance(key, Tensor) else key
