"""Groups: what they are in data with marks, on disk, in training, in metrics and in tables."""

import dataclasses
import json

import numpy as np
import pandas as pd
import photo_collection
import pytest
import reporting_runs
import torch
from hand_worked import task_of
from reporting_runs import LABELS
from torch import nn

from isnet_bench import config as configuration
from isnet_bench import data, methods
from isnet_bench.config import fill
from isnet_bench.data import contract
from isnet_bench.evaluation import evaluate as evaluation
from isnet_bench.evaluation.metrics import by_group
from isnet_bench.io.errors import BenchError
from isnet_bench.reporting import tables
from isnet_bench.training import runs
from isnet_bench.training import train as training
from isnet_bench.training.tallies import WorstGroup

bench = reporting_runs.bench
NAMES = (("bird", "land"), ("bird", "water"), ("cow", "land"), ("cow", "water"))


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Digits of scikit-learn with marks of this strength."""

    def make(strength):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ISNET_BENCH_DATA", str(tmp_path_factory.mktemp("nothing")))
            kind = data.known()["mnist"]
            given = {"train_images": 300, "val_images": 40, "test_images": 60, "download": False}
            return kind.make(fill(kind.settings, {**given, "bias": {"strength": strength}}))

    return make


def test_accuracy_of_groups_by_hand():
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 0])
    predictions = np.array([0, 0, 1, 0, 1, 0, 1, 0])
    found = by_group(labels, predictions, np.array([0, 0, 0, 0, 3, 3, 3, 1]), NAMES)
    assert found["per_group"] == [
        {"class": "bird", "group": "land", "accuracy": 3 / 4, "support": 4},
        {"class": "bird", "group": "water", "accuracy": 1.0, "support": 1},
        {"class": "cow", "group": "water", "accuracy": 2 / 3, "support": 3},
    ]
    assert found["worst_group_accuracy"] == 2 / 3
    assert found["mean_group_accuracy"] == pytest.approx((3 / 4 + 1 + 2 / 3) / 3)
    json.dumps(found)


def test_groups_of_marks_are_what_the_pixels_show(digits):
    made = digits(0.7)
    rows = np.linspace(0, 27, 10).round().astype(int)
    for split in ("train", "val", "iid", "deceiving"):
        images, _, labels = made.splits[split]
        shown = images[:, 0, rows, 0].argmax(1)
        assert made.groups[split].tolist() == [int(mark != label) for mark, label in zip(shown, labels, strict=True)]
    assert made.groups["deceiving"].all()
    assert 0.2 < made.groups["train"].mean() < 0.4
    # Without a mark an image supports and contradicts nothing.
    assert "ood" not in made.groups


def test_where_no_mark_contradicts_there_are_no_groups(digits, tmp_path):
    made = digits(1.0)
    data.write(made, {}, tmp_path)
    assert (made.groups, made.group_names, data.groups(tmp_path, "iid")) == ({}, (), None)
    assert not {"group_names", "group_images"} & set(data.info(tmp_path))


def test_groups_on_disk_are_each_class_with_each_attribute(digits, tmp_path):
    made = digits(0.7)
    data.write(made, {}, tmp_path)
    found = data.groups(tmp_path, "val")
    assert found.names[:3] == (("0", "bias-aligned"), ("0", "bias-conflicting"), ("1", "bias-aligned"))
    expected = [
        (str(label), made.group_names[k])
        for label, k in zip(made.splits["val"].labels, made.groups["val"], strict=True)
    ]
    assert [found.names[k] for k in found.ids] == expected
    counts = [expected.count(name) for name in found.names]
    assert data.info(tmp_path)["group_images"]["val"] == counts
    assert data.groups(tmp_path, "ood") is None


def test_other_groups_are_other_data(digits, tmp_path):
    made = digits(0.7)
    digests = []
    for name, groups in (("one", made.groups), ("other", {**made.groups, "iid": 1 - made.groups["iid"]})):
        data.write(dataclasses.replace(made, groups=groups), {}, tmp_path / name)
        digests.append(data.info(tmp_path / name)["digests"])
    assert {split for split in digests[0] if digests[0][split] != digests[1][split]} == {"iid"}
    (tmp_path / "one/iid.npz").write_bytes((tmp_path / "other/iid.npz").read_bytes())
    with pytest.raises(BenchError, match=r"iid\.npz belongs to other data"):
        data.load(tmp_path / "one", "iid")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"group_names": ()}, "it has groups without names"),
        ({"groups": {}}, "or names of groups without any"),
        ({"group_names": ("a", "a")}, "names of groups are empty or there twice"),
        ({"group_names": ("a",)}, "groups of train are not those of the names"),
        ({"groups": {"iid": np.zeros(60)}}, r"groups of iid must be int64 \(N,\), one for each image, not float64"),
        ({"groups": {"iid": np.zeros(59, np.int64)}}, "groups of iid must be int64"),
        ({"groups": {"extra": np.zeros(60, np.int64)}}, "groups are of splits that there are not"),
    ],
)
def test_a_broken_contract_is_one_sentence(digits, changes, sentence):
    with pytest.raises(BenchError, match=sentence):
        contract.check(dataclasses.replace(digits(0.7), **changes), "own")


# --- tables -------------------------------------------------------------------------------------------------


def with_groups(bench, row, seed):
    """Give the iid images of a run two groups of class 0, the second the worse the higher the seed."""
    path = bench.run(row, seed) / "metrics.json"
    sets = json.loads(path.read_text())["sets"]
    ids, labels = np.repeat([0, 1], [8, 4]), np.zeros(12, int)
    predictions = np.r_[np.zeros(11 - seed, int), np.ones(1 + seed, int)]
    sets["iid"] |= by_group(labels, predictions, ids, NAMES[:2])
    bench.change(row, seed, sets=sets)


def test_tables_have_the_groups_that_there_are(bench, tmp_path):
    for row in LABELS:
        for seed in range(3):
            with_groups(bench, row, seed)
    found = bench.read()
    assert found.grouped == ("iid",)
    tables.write(found, tmp_path / "t")
    summed = pd.read_csv(tmp_path / "t.csv").set_index("method").loc["resnet"]
    # 3, 2 and 1 of 4 images of the worst group; the other is always right.
    assert summed["iid_worst_group_accuracy_mean"] == pytest.approx(0.5)
    assert summed["iid_worst_group_accuracy_std"] == pytest.approx(0.25)
    assert summed["iid_mean_group_accuracy_mean"] == pytest.approx(0.75)
    assert not [name for name in summed.index if name.startswith(("ood_worst", "deceiving_mean_group"))]
    groups = pd.read_csv(tmp_path / "t_groups.csv")
    assert len(groups) == 2 * len(LABELS)
    assert groups.iloc[1].tolist() == ["resnet", LABELS["resnet"], "iid", "bird", "water", 0.5, 0.25, 4.0]
    text = (tmp_path / "t.md").read_text()
    assert "iid, worst group (%)" in text
    assert "50.0 ± 25.0" in text
    assert "Worst group: lowest accuracy of a class with an attribute." in text


def test_tables_without_groups_say_nothing_of_them(bench, tmp_path):
    (tmp_path / "t_groups.csv").write_text("of runs before")
    tables.write(bench.read(), tmp_path / "t")
    assert not (tmp_path / "t_groups.csv").exists()
    assert "group" not in (tmp_path / "t.csv").read_text() + (tmp_path / "t.md").read_text()


# --- training -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def contradicted(tiny_given, tmp_path_factory):
    """A configuration of digits half of whose marks contradict, its rows' trainings, and the folder of its data."""
    section = {**tiny_given["experiments"]["tiny"], "methods": {"group_dro": {}, "resnet": {}}}
    section["data"] = {**section["data"], "train_images": 300, "bias": {"strength": 0.5}}
    section["training"] = {**section["training"], "epoch": "worst_group"}
    config = configuration.check({**tiny_given, "experiments": {"tiny": section}}, "test")
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISNET_BENCH_DATA", str(tmp_path_factory.mktemp("nothing")))
        data.prepare("tiny", config, folder)
    return config, folder


@pytest.mark.parametrize("row", ["group_dro", "resnet"])
def test_a_run_with_groups_from_training_to_metrics(row, contradicted, tmp_path):
    config, folder = contradicted
    job = runs.Job(config, "tiny", row, 0, folder)
    training.train(job, tmp_path, None)
    history = pd.read_csv(tmp_path / "history.csv")
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["best_epoch"] == history["val_worst_group_error"].idxmin() + 1
    evaluation.evaluate(job, tmp_path)
    found = json.loads((tmp_path / "metrics.json").read_text())["sets"]
    predicted = pd.read_parquet(tmp_path / "predictions.parquet").query("set == 'iid'")
    attributes = np.load(folder / "iid.npz")["groups"]
    right = (predicted["label"] == predicted["prediction"]).groupby([predicted["label"], attributes]).mean()
    assert found["iid"]["worst_group_accuracy"] == pytest.approx(right.min())
    assert found["iid"]["mean_group_accuracy"] == pytest.approx(right.mean())
    assert "per_group" not in found["ood"]


def test_the_error_of_the_worst_group_by_hand():
    tally = WorstGroup(4, torch.device("cpu"))
    tally.add(torch.tensor([True, True, False]), torch.tensor([0, 1, 1]))
    tally.add(torch.tensor([True, False]), torch.tensor([1, 0]))
    # One of two, two of three; the other two groups have no images.
    assert tally.error() == pytest.approx(1 / 2)


@pytest.mark.parametrize(
    ("row", "epoch", "sentence"),
    [
        ("group_dro", "last", "undefined without training images of every group, and these data have no groups"),
        ("resnet", "worst_group", "validation images have no groups; set training.epoch to another rule"),
    ],
)
def test_what_needs_groups_is_refused_without(row, epoch, sentence, tiny_given, tiny_data, tmp_path):
    section = {**tiny_given["experiments"]["tiny"], "methods": {row: {"training": {"epoch": epoch}}}}
    config = configuration.check({**tiny_given, "experiments": {"tiny": section}}, "test")
    with pytest.raises(BenchError, match=sentence):
        training.train(runs.Job(config, "tiny", row, 0, tiny_data), tmp_path, None)
    assert not (tmp_path / "run.json").exists()


def test_an_empty_group_is_named():
    method = methods.get("group_dro")
    task = dataclasses.replace(task_of(nn.Identity()), group_images={"cow, land": 3, "cow, water": 0})
    with pytest.raises(ValueError, match=r"undefined without .*there are none of 'cow, water'"):
        method.build(task, method.hyperparameters())


# --- photographs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("planted", ["marks", "places"])
def test_groups_of_photographs_are_by_whose_mark_or_place_they_have(planted, tmp_path, monkeypatch):
    monkeypatch.setenv("ISNET_BENCH_DATA", str(tmp_path))
    photo_collection.Photographs(tmp_path)
    given = {"marks": {"pattern": "corner_patch", "size": 4}, "places": {"pictures": 2}}[planted]
    made = photo_collection.make(**{planted: {**given, "strength": 0.5}})
    assert made.group_names == ("bias-aligned", "bias-conflicting")
    assert set(made.groups) == {"train", "val", "iid", "deceiving"}
    column = planted.removesuffix("s")
    for split, groups in made.groups.items():
        own = [made.classes[label] for label in made.splits[split].labels]
        assert groups.tolist() == [
            int(told != name) for told, name in zip(made.records[split][column], own, strict=True)
        ]
    assert photo_collection.make(**{planted: given}).groups == {}


def test_groups_of_a_manifest_are_kept_with_marks(tmp_path, monkeypatch):
    monkeypatch.setenv("ISNET_BENCH_DATA", str(tmp_path))
    collection = photo_collection.Photographs(tmp_path)
    collection.table["group"] = ["wood", "field", "wood"] * 10
    collection.write()
    made = photo_collection.make(marks={"pattern": "corner_patch", "size": 4, "strength": 0.5})
    assert made.group_names == ("field", "wood")
    assert made.groups["ood"].tolist() == [1, 0, 1] * 3
