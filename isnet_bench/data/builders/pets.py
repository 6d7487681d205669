"""The Oxford-IIIT Pet set: cats and dogs of 37 breeds, each with a trimap (1 pet, 2 background, 3 the border)."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from isnet_bench.data.builders.base import Collection, find, photographs
from isnet_bench.io.errors import BenchError

_SPECIES = {"1": "cat", "2": "dog"}
_LISTS = {"annotations/trainval.txt": "train", "annotations/test.txt": "test_iid"}
_BORDER = 3


def _pets(folder: Path) -> pd.DataFrame:
    rows = []
    for name, split in _LISTS.items():
        path = find(folder, [name])
        for line, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            # Name with the breed, its number, species, and the breed's number in the species.
            stem, _, species, *_ = [*text.split(), "", "", ""]
            if not stem or stem.startswith("#"):
                continue
            if species not in _SPECIES:
                raise BenchError(
                    f"{path}, line {line}: {species!r} is no species; it should be {' or '.join(_SPECIES)}"
                )
            trimap = f"annotations/trimaps/{stem}.png"
            mask = (trimap,) if (folder / trimap).is_file() else ()
            finding = f"{_SPECIES[species]}/{stem.rpartition('_')[0].lower()}"
            rows.append({"image": f"images/{stem}.jpg", "finding": finding, "split": split, "mask": mask})
    return photographs(rows)


COLLECTIONS = {
    "oxford_pets": Collection(
        title="the Oxford-IIIT Pet set",
        home="https://www.robots.ox.ac.uk/~vgg/data/pets/",
        read=_pets,
        labels={species: species for species in _SPECIES.values()},
        foreground=lambda values: (values == 1) | (values == _BORDER),
    )
}
