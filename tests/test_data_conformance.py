"""What every data set must be; the checks are those of the verb check-data."""

import dataclasses
import math

import numpy as np
import pydantic
import pytest
from photo_collection import Photographs

from isnet_bench import data
from isnet_bench.config import fill
from isnet_bench.data.base import NO_MASK, Arrays
from isnet_bench.data.conformance import CHECKS, Subject
from isnet_bench.io.checks import problem_of
from isnet_bench.io.errors import BenchError

# Few images. A data set that is not here is made with its defaults.
FEW = {"train_images": 12, "val_images": 6, "test_images": 9}
SMALL = {
    "mnist": [
        {"train_images": 90, "val_images": 20, "test_images": 30, "download": False, "bias": {"strength": strength}}
        for strength in (1.0, 0.7)
    ],
    "decoy_mnist": [{"train_images": 90, "val_images": 20, "test_images": 30, "download": False}],
    "colored_mnist": [{"train_images": 90, "val_images": 20, "test_images": 30, "download": False}],
    "phantom": [FEW, {**FEW, "bias": "shape", "strength": 0.7, "image_size": 32}],
    "images": [
        {"image_size": 32, "marks": {"pattern": "corner_patch", "size": 4}},
        {"image_size": 32, "places": {"pictures": 2, "strength": 0.5}, "color": "grey"},
    ],
    "xray": [{"phantom": FEW, "image_size": 64}, {"phantom": FEW, "marks": {"pattern": "corner_shape", "size": 8}}],
}
CASES = [(name, values) for name in data.known().things for values in SMALL.get(name, [{}])]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case[0])
def subject(request, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("nothing")
        patch.setenv("ISNET_BENCH_DATA", str(root))
        name, values = request.param
        if name == "images":
            Photographs(root)
        yield Subject(data.known()[name], values)


@pytest.mark.parametrize("check", CHECKS)
def test_a_data_set_is_as_the_benchmark_needs_it(check, subject):
    assert problem_of(CHECKS[check], subject) == ""


# Settings that are refused; the last one of each is named.
REFUSED = [
    ("mnist", {"train_images": 9}), ("mnist", {"image_size": 20}), ("mnist", {"mask_dilation": -1}),
    ("mnist", {"bias": {"strength": 1.5}}), ("mnist", {"bias": {"size": 0}}), ("mnist", {"bias": {"sise": 1}}),
    ("mnist", {"bias": {"size": 5, "pattern": "corner_shape"}}), ("mnist", {"mask_quality": {"change": "blur"}}),
    ("decoy_mnist", {"bias": {}}), ("colored_mnist", {"colour_flips": []}), ("colored_mnist", {"label_noise": 1.1}),
    ("phantom", {"test_images": 2}), ("phantom", {"image_size": 31}), ("phantom", {"variation": math.inf}),
    ("phantom", {"traits": ["crop"]}), ("phantom", {"bias": "colour"}), ("phantom", {"image_size": 32, "mark_size": 7}),
    ("xray", {"labels": ["a"]}), ("xray", {"labels": ["a", "a", "b"]}), ("xray", {"labels": ["a", ""]}),
    ("xray", {"image_size": 31}), ("xray", {"manifest": "../manifest.csv"}), ("xray", {"manifest": "/manifest.csv"}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "values"), REFUSED)
def test_values_out_of_bounds_are_refused(name, values):
    with pytest.raises(BenchError, match=list(values)[-1]):
        fill(data.known()[name].settings, values)


# --- what the checks find -----------------------------------------------------------------------------------


def broken(split="iid", **changes):
    """A phantom of which one split is changed."""
    kind = data.known()["phantom"]
    settings = kind.settings(**FEW)
    made = kind.make(settings)
    arrays = made.splits[split]._replace(**{key: change(made.splits[split]) for key, change in changes.items()})
    made = dataclasses.replace(made, splits={**made.splits, split: arrays})
    return Subject(dataclasses.replace(kind, make=lambda _: made), FEW)


@pytest.mark.parametrize(
    ("check", "split", "change", "problem"),
    [
        ("shapes and types", "ood", {"images": lambda a: a.images / 255}, "images of ood must be uint8 (N, C, H, W)"),
        ("shapes and types", "val", {"labels": lambda a: a.labels[1:]}, "val is empty, or its arrays differ in length"),
        ("labels", "iid", {"labels": lambda a: a.labels + 1}, "labels of iid are not those of the classes"),
        ("labels", "iid", {"labels": lambda a: a.labels.astype(np.int32)}, "labels of iid must be int64 (N,)"),
        ("labels", "train", {"labels": lambda a: a.labels * 0}, "no training image shows pneumonia, covid19"),
        ("masks", "ood", {"masks": lambda a: a.masks * 255 - (a.masks > 0)}, "masks of ood must be 0 or 1"),
        ("masks", "val", {"masks": lambda a: a.masks * 0}, "a mask of val has no foreground"),
        ("changes of the background", "ood", {"images": lambda a: 255 - a.images}, "changes foregrounds"),
    ],
)
def test_a_check_says_what_is_wrong(check, split, change, problem):
    assert problem in problem_of(CHECKS[check], broken(split, **change))


def test_chance_is_found():
    rng = np.random.default_rng(0)
    kind = data.known()["phantom"]
    again = dataclasses.replace(kind, make=lambda settings: kind.make(kind.settings(9, 6, 9, int(rng.integers(99)))))
    assert problem_of(CHECKS["the same settings give the same images"], Subject(again, {})).startswith("train is")


def test_names_of_settings_that_all_data_sets_have_are_taken():
    @pydantic.dataclasses.dataclass(frozen=True)
    class Settings:
        masks: int = 3

    check = next(iter(CHECKS.values()))
    problem = problem_of(check, Subject(dataclasses.replace(data.known()["phantom"], settings=Settings), {}))
    assert problem == "its Settings have masks, which the configuration has for all data sets"


def test_images_without_a_mask_are_marked_on_disk_and_in_memory():
    subject = broken("train", masks=lambda a: np.where(np.arange(12)[:, None, None, None] < 3, NO_MASK, a.masks))
    assert isinstance(subject.made.splits["train"], Arrays)
    assert [problem for check in CHECKS.values() if (problem := problem_of(check, subject))] == []
