"""Groups: what they are in data with marks, on disk, in metrics and in tables."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import reporting_runs
from reporting_runs import LABELS

from isnet_bench import data
from isnet_bench.config import fill
from isnet_bench.data import contract
from isnet_bench.evaluation.metrics import by_group
from isnet_bench.io.errors import BenchError
from isnet_bench.reporting import tables

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
    with pytest.raises(BenchError, match=r"iid\.npz is of other data"):
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
    runs = bench.read()
    assert runs.grouped == ("iid",)
    tables.write(runs, tmp_path / "t")
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
