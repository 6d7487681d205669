"""A configuration made so small that each of its runs takes seconds: does every row work at its size?"""

from __future__ import annotations

import json
from typing import Any

from isnet_bench.config.checking import check
from isnet_bench.config.configuration import Config
from isnet_bench.config.models import Row

_BATCHES = 2
FEW = {"mnist": 10, "decoy_mnist": 10, "colored_mnist": 10, "phantom": 4, "xray": 4, "images": 4}
"""Images of each split, about the fewest that a data set takes."""

# Where there is none, the phantom stands in.
_NO_MANIFEST = "rehearsal/manifest.csv"


def rehearsal(config: Config, part: int = 1, of: int = 1) -> Config:
    """Return a configuration with the same backbones, image sizes, methods and hyper-parameters, on the processor.

    It has one seed; each run has one epoch of two batches of a few images. X-rays are the phantom, which stands in. Of
    photographs the manifest is asked for as it is: whoever rehearses gives one of `FEW` images.
    A row that another experiment has, too, with the same backbone and image size is there once; an experiment that
    has no other rows keeps one. Left out are methods that need groups, which so few images do not have, studies,
    overviews, segmentation and timing, and experiments on data sets of plug-ins, whose sizes nothing here knows.

    Rows may be shared out: part 1 of 2 has the first, the third, ... of all that are left, part 2 the others. An
    experiment without a row in a part is not in it.
    """
    given = config.given("studies", "overviews", "segment", "timing", "results")
    seen: set[str] = set()
    made = {}
    for name, section in given["experiments"].items():
        kind = section["data"]["name"]
        rows = config.experiments[name].rows
        entries = {row: entry for row, entry in section.get("methods", {}).items() if not _of_groups(config, rows[row])}
        if kind in FEW and entries:
            fresh = {row: entry for row, entry in entries.items() if _key(section, entry) not in seen}
            seen |= {_key(section, entry) for entry in fresh.values()}
            made[name] = _small(section, fresh or dict([next(iter(entries.items()))]))
    mine = [(name, row) for name, section in made.items() for row in section["methods"]][part - 1 :: of]
    for name, section in list(made.items()):
        section["methods"] = {row: entry for row, entry in section["methods"].items() if (name, row) in mine}
        if not section["methods"]:
            del made[name]
    return check({**given, "seeds": given["seeds"][:1], "device": "cpu", "experiments": made}, "the rehearsal")


def _of_groups(config: Config, row: Row) -> bool:
    return config.catalog.methods[row.method].groups


def _key(section: dict[str, Any], entry: dict[str, Any]) -> str:
    return json.dumps(
        [section["backbone"], *map(section["data"].get, ("name", "image_size", "labels")), entry], sort_keys=True
    )


def _small(section: dict[str, Any], methods: dict[str, Any]) -> dict[str, Any]:
    kind = section["data"]["name"]
    images = {f"{split}_images": FEW[kind] for split in ("train", "val", "test")}
    own = {"xray": {"manifest": _NO_MANIFEST, "phantom": images, "predicted_masks": None}, "images": {}}
    data = own.get(kind, images)
    size = FEW[kind] // _BATCHES
    short = {"epochs": 1, "batch_size": size, "val_batch_size": size, "masked_images": None}
    section.pop("seeds", None)
    return {
        **section,
        "data": {**section["data"], **data, "masks": None},
        "training": {**section["training"], **short},
        "methods": {
            row: {**entry, "training": {**entry.get("training", {}), **short}} for row, entry in methods.items()
        },
        "gallery": None,
    }
