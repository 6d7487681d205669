"""Experiments on X-rays: masks of their own segmentation, seeds of their own, and a data root without X-rays."""

import copy
import json
from pathlib import Path

import pytest
from xray_collection import make

from isnet_bench import config as configuration
from isnet_bench import data as datasets
from isnet_bench.io.errors import BenchError

CONFIGS = Path(__file__).resolve().parents[1] / "config"
PHANTOM = {"train_images": 6, "val_images": 3, "test_images": 3}
GIVEN = {
    "seeds": [0, 1, 2],
    "results": "results/here",
    "segment": {"masks": "chests/lungs.csv", "manifest": "chests/manifest.csv", "optional": True},
    "experiments": {
        "chests": {
            "seeds": [7],
            "data": {"name": "xray", "predicted_masks": "segment"},
            "backbone": {"name": "resnet_small"},
            "training": {"epochs": 2, "batch_size": 8, "learning_rate": 1e-3},
            "methods": ["resnet"],
        },
        "drawn": {"data": {"name": "xray", "predicted_masks": "by/hand"}},
    },
    "studies": {
        "sizes": {
            "experiment": "chests",
            "rows": ["resnet"],
            "vary": [{"setting": "data.image_size", "values": [64]}],
        }
    },
}


@pytest.fixture
def given():
    return copy.deepcopy(GIVEN)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("ISNET_BENCH_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.mark.parametrize("results", ["results/here", "elsewhere"])
def test_own_masks_lie_below_the_results(given, results):
    config = configuration.check({**given, "results": results}, "test")
    assert given == GIVEN, "the given configuration has been changed"
    folders = {"chests": f"{results}/segment/masks", "sizes_64": f"{results}/segment/masks", "drawn": "by/hand"}
    for experiment, folder in folders.items():
        assert config.experiment(experiment).data.settings["predicted_masks"] == folder
    assert configuration.load(json.dumps(given), "there").experiment("chests").data.settings["predicted_masks"] == (
        "there/segment/masks"
    )
    # A job's part has no section segment; its folder is spelled out.
    again = configuration.load(config.part("prepare", "chests"))
    assert again.experiment("chests").data == config.experiment("chests").data


def test_own_masks_need_a_segmentation(given):
    del given["segment"]
    with pytest.raises(BenchError, match=r"^test: experiments\.chests\.data\.predicted_masks: segment means the masks"):
        configuration.check(given, "test")


@pytest.mark.parametrize(
    ("own", "of_study", "expected", "expected_of_study"),
    [(None, None, (0, 1, 2), (0, 1, 2)), ([7], None, (7,), (7,)), ([7], [3], (7,), (3,)), (None, [3], (0, 1, 2), (3,))],
)
def test_an_experiment_may_have_seeds_of_its_own(given, own, of_study, expected, expected_of_study):
    given["experiments"]["chests"]["seeds"], given["studies"]["sizes"]["seeds"] = own, of_study
    config = configuration.check(given, "test")
    assert config.experiment_seeds("chests") == expected
    assert config.study_seeds("sizes") == expected_of_study
    assert config.experiment_seeds("drawn") == (0, 1, 2)
    for what in ({"experiment": "chests"}, {"study": "sizes"}):
        again = configuration.load(config.part("report", **what))
        (seeds,) = [*map(again.study_seeds, again.studies)] or [again.experiment_seeds("chests")]
        assert seeds == (expected_of_study if "study" in what else expected)
    # A training does not depend on which others there are.
    assert configuration.load(config.part("train", "chests", "resnet")).experiment_seeds("chests") == ()


def test_a_rehearsal_has_one_seed(given):
    assert configuration.rehearsal(configuration.check(given, "test")).experiment_seeds("chests") == (0,)


@pytest.mark.parametrize(
    ("there", "absent"),
    [(None, True), ("other", True), ("chests", False), ("chests/train", False), ("chests/manifest.csv", False)],
)
def test_lungs_are_segmented_unless_a_phantom_stands_in(given, root, there, absent):
    if there:
        (root / there).mkdir(parents=True)
    assert configuration.check(given, "test").segments is not absent
    if absent:
        assert make(phantom=PHANTOM, predicted_masks="results/here/segment/masks").stand_in
    else:
        with pytest.raises(BenchError, match=r"the folder .*chests has no file manifest\.csv with the manifest"):
            make(phantom=PHANTOM)
    given["segment"]["optional"] = False
    assert configuration.check(given, "test").segments
    del given["segment"], given["experiments"]["chests"]
    del given["studies"]
    assert not configuration.check(given, "test").segments


def test_the_default_has_x_rays_with_the_settings_of_its_digits():
    config = configuration.load(CONFIGS / "config.yaml")
    digits = config.experiment("mnist").rows
    for name in ("covid", "covid_marks"):
        for row, entry in config.experiment(name).rows.items():
            tuned = digits[row if row in digits else entry.method]
            assert entry.params == {**tuned.params, **({"heatmap_fraction": 0.125} if row not in digits else {})}
            assert entry.training.learning_rate == tuned.training.learning_rate
            assert entry.training.epoch == "last"
        assert config.experiment_seeds(name) == (0, 1)
    assert config.experiment_seeds("mnist") == (0, 1, 2)
    assert config.experiments["covid_marks"].gallery == ()


@pytest.mark.parametrize("name", ["covid", "covid_marks"])
def test_phantoms_of_the_default_say_what_they_are(root, tmp_path, name):
    given = configuration.parse(CONFIGS / "config.yaml")[0]
    data = given["experiments"][name]["data"]
    small = {
        **data,
        "phantom": PHANTOM,
        "image_size": 48,
        **({"marks": {**data["marks"], "size": 6}} if "marks" in data else {}),
    }
    given["experiments"] = {name: {**given["experiments"][name], "data": small}}
    kept = {key: given[key] for key in ("seeds", "segment", "experiments")}
    datasets.prepare(name, configuration.check(kept, "test"), tmp_path / "out")
    info = datasets.info(tmp_path / "out")
    assert info["stand_in"]
    assert "phantom (stand-in for the X-rays of covid/manifest.csv)" in info["title"]
    assert set(info["test_sets"]) == {"iid", "ood", "deceiving"}
