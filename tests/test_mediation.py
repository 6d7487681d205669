"""Mediation: units that carry the effect of a change, in networks whose answer is worked out by hand."""

import copy

import pandas as pd
import pytest
import torch
from torch import nn

from isnet_bench import config as configuration
from isnet_bench.data import Split
from isnet_bench.evaluation import evaluate as evaluation
from isnet_bench.evaluation.mediation import KINDS, mediation
from isnet_bench.io.errors import BenchError
from isnet_bench.training import train as training
from isnet_bench.training.runs import Job

CPU = torch.device("cpu")


def pixels(*images):
    """Images of 1 x 2 pixels: the object, and the background."""
    tensor = torch.tensor(images)[:, None, None]
    return Split(
        tensor, torch.tensor([[[[1.0, 0.0]]]]).expand(len(images), -1, -1, -1), torch.zeros(len(images)).long()
    )


PLAIN, MARKED = pixels([1.0, 0.0], [0.8, 0.0]), pixels([1.0, 1.0], [0.8, 1.0])


def linear(weights, bias=None):
    layer = nn.Linear(len(weights[0]), len(weights), bias=bias is not None)
    layer.weight.data = torch.tensor(weights)
    if bias is not None:
        layer.bias.data = torch.tensor(bias)
    return layer


def two_units(weights, out):
    """Two units that see the two pixels, and two logits that see the units."""
    return nn.Sequential(nn.Flatten(), linear(weights), nn.ReLU(), linear(out, [0.0, 0.5])).eval()


def by_place(table, column="restored"):
    return {(layer, kind): value for layer, kind, value in table[["layer", "kind", column]].itertuples(index=False)}


@pytest.mark.parametrize(
    ("kind", "weights", "out"),
    [
        # The second unit sees nothing, so that half of the units are of the kind.
        ("silenced", [[1.0, -2.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 0.0]]),
        ("lowered", [[1.0, -0.6], [0.0, 0.0]], [[1.0, 0.0], [0.0, 0.0]]),
        ("raised", [[0.1, 1.0], [0.0, 0.0]], [[0.6, 0.0], [1.0, 0.0]]),
        ("woken", [[0.0, 1.0], [0.0, 0.0]], [[0.6, 0.0], [1.0, 0.0]]),
    ],
)
def test_the_one_unit_that_carries_the_effect(kind, weights, out):
    network = two_units(weights, out)
    network[3].bias.data = torch.tensor([0.0, 0.5]) if kind in ("silenced", "lowered") else torch.tensor([0.3, 0.0])
    table, changed = mediation(network, PLAIN, MARKED, 8, CPU)
    assert changed == 2
    assert by_place(table) == {("2", name): float(name == kind) for name in KINDS}
    assert by_place(table, "units") == {("2", name): 0.5 * (name == kind) for name in KINDS}


def test_how_far_a_change_moves_a_layer_is_the_mean_of_all_images():
    # (3, 4) becomes (3, 0) in the first image; the second does not change.
    before, after = pixels([3.0, 4.0], [1.0, 0.0]), pixels([3.0, 0.0], [1.0, 0.0])
    network = two_units([[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 0.0]])
    table, changed = mediation(network, before, after, 1, CPU)
    assert changed == 0
    assert by_place(table, "shift") == {("2", kind): pytest.approx(0.4) for kind in KINDS}


def test_only_images_whose_prediction_changes_count():
    # Of the three images only the middle one is near enough to the border between the classes.
    before, after = pixels([0.1, 0.0], [0.6, 0.0], [9.0, 0.0]), pixels([0.1, 0.3], [0.6, 0.3], [9.0, 0.3])
    network = two_units([[1.0, -1.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 0.0]])
    table, changed = mediation(network, before, after, 2, CPU)
    assert changed == 1
    assert by_place(table)["2", "lowered"] == 1
    assert by_place(table, "units")["2", "silenced"] == 0


def test_an_effect_that_needs_two_kinds_is_restored_by_neither():
    # Either of the two units alone keeps the first logit above the second.
    network = two_units([[1.0, -2.0], [1.0, -0.7]], [[1.0, 1.0], [0.0, 0.0]])
    network[3].bias.data = torch.tensor([0.0, 1.5])
    table, _ = mediation(network, pixels([1.0, 0.0]), pixels([1.0, 1.0]), 8, CPU)
    assert by_place(table) == {("2", kind): 0 for kind in KINDS}


def test_what_follows_the_layer_is_computed_again():
    # The background silences the unit of the first layer, which wakes that of the second, which lowers the logit.
    network = nn.Sequential(
        nn.Flatten(),
        linear([[1.0, -2.0]]),
        nn.ReLU(),
        linear([[-1.0]], [0.5]),
        nn.ReLU(),
        linear([[-1.0], [0.0]], [0.25, 0.0]),
    ).eval()
    table, changed = mediation(network, PLAIN, MARKED, 8, CPU)
    assert changed == 2
    found = by_place(table)
    assert [place for place, share in found.items() if share] == [("2", "silenced"), ("4", "woken")]
    assert list(found) == [(layer, kind) for layer in ("2", "4") for kind in KINDS]


class Shared(nn.Module):
    """One in-place ReLU module that is called twice, and one that is never called."""

    def __init__(self):
        super().__init__()
        self.first, self.second = linear([[1.0, -2.0], [0.0, 0.0]]), linear([[1.0, 0.0], [0.0, 0.0]], [0.0, 0.5])
        self.relu, self.idle = nn.ReLU(inplace=True), nn.ReLU()

    def forward(self, images):
        return self.relu(self.second(self.relu(self.first(images.flatten(1)))))


def test_calls_of_one_module_are_layers_of_their_own():
    network = Shared().eval()
    table, _ = mediation(network, PLAIN, MARKED, 8, CPU)
    found = by_place(table)
    assert {layer for layer, _ in found} == {"relu", "relu, call 2"}
    assert found["relu", "silenced"] == found["relu, call 2", "silenced"] == 1
    assert not network.relu._forward_hooks


def test_batches_do_not_matter():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 4)
    ).eval()
    images, masks, labels = torch.rand(40, 1, 8, 8), torch.ones(40, 1, 8, 8), torch.zeros(40).long()
    change = images.clone()
    change[:, :, :3, :3] = 1 - change[:, :, :3, :3]
    whole, changed = mediation(network, Split(images, masks, labels), Split(change, masks, labels), 40, CPU)
    parts, same = mediation(network, Split(images, masks, labels), Split(change, masks, labels), 7, CPU)
    assert changed == same > 0
    pd.testing.assert_frame_equal(whole, parts)
    assert whole["restored"].between(0, 1).all()
    assert whole.groupby("layer")["units"].sum().between(0.01, 1).all()


def test_no_change_no_shares():
    table, changed = mediation(two_units([[1.0, 0.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 0.0]]), PLAIN, MARKED, 8, CPU)
    assert changed == 0
    assert table[["units", "restored"]].isna().all(axis=None)
    assert len(table) == len(KINDS)


def test_a_network_without_relu_is_refused():
    network = nn.Sequential(nn.Flatten(), nn.Linear(2, 2), nn.GELU())
    with pytest.raises(ValueError, match=r"its predictions use no nn\.ReLU module"):
        mediation(network, PLAIN, MARKED, 8, CPU)


def test_of_a_run(tiny_config, tiny_data, tmp_path):
    job = Job(tiny_config, "tiny", "resnet", 0, tiny_data)
    training.train(job, tmp_path, None)
    evaluation.evaluate(job, tmp_path)
    evaluation.mediate(job, tmp_path)
    table = pd.read_csv(tmp_path / "mediation.csv")
    assert list(table) == ["change", "images", "layer", "shift", "kind", "units", "restored"]
    assert list(table["change"].unique()) == ["mark removed", "mark swapped", "mark added"]
    predictions = pd.read_parquet(tmp_path / "predictions.parquet").pivot(index="index", columns="set")["prediction"]
    swapped = table[table["change"] == "mark swapped"]
    assert (swapped["images"] == (predictions["iid"] != predictions["deceiving"]).sum()).all()


def test_data_without_such_test_sets_are_refused(tiny_config, tiny_data, tmp_path, monkeypatch):
    info = {**evaluation.datasets.info(tiny_data), "background_changes": {}}
    monkeypatch.setattr(evaluation.datasets, "info", lambda folder: info)
    job = Job(tiny_config, "tiny", "resnet", 0, tiny_data)
    training.train(job, tmp_path, None)
    with pytest.raises(BenchError, match="experiment tiny has no test sets that differ in the background alone"):
        evaluation.mediate(job, tmp_path)
    assert not (tmp_path / "mediation.csv").exists()


def test_a_row_without_relu_is_named(tiny_given, tiny_data, tmp_path):
    given = copy.deepcopy(tiny_given)
    given["experiments"]["tiny"]["methods"] = {"vit": {"params": {"patch_size": 7}}}
    config = configuration.check(given, "the test's configuration")
    job = Job(config, "tiny", "vit", 0, tiny_data)
    training.train(job, tmp_path, None)
    with pytest.raises(BenchError, match=r"the network of row vit: its predictions use no nn\.ReLU"):
        evaluation.mediate(job, tmp_path)
