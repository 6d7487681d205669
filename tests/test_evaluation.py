"""Evaluation: background relevance against an independent implementation, and the files that are written."""

import copy
import hashlib
import json
import logging
import shutil

import numpy as np
import pandas as pd
import pytest
import quantus
import torch
from torch import nn

import isnet
from baselines.base import Method, NoHyperparameters, Visible
from isnet_bench import config as configuration
from isnet_bench import data as datasets
from isnet_bench import methods
from isnet_bench.data import Split
from isnet_bench.data.base import NO_MASK
from isnet_bench.evaluation import evaluate as evaluation
from isnet_bench.evaluation.relevance import background_relevance, examine, explainer, spread
from isnet_bench.io.errors import BenchError
from isnet_bench.io.files import write_json
from isnet_bench.methods import backbones
from isnet_bench.training import runs
from isnet_bench.training import train as training

CPU = torch.device("cpu")
PLAIN = methods.get("resnet")


@pytest.fixture(scope="module")
def evaluated(tiny_config, tiny_data, tmp_path_factory):
    """Folder of an evaluated run."""
    out = tmp_path_factory.mktemp("run")
    job = runs.Job(tiny_config, "tiny", "resnet", 0, tiny_data)
    training.train(job, out, None)
    evaluation.evaluate(job, out)
    return out


def smooth_masks(images, size):
    """Random masks of which at least one pixel is foreground, and one background."""
    masks = (torch.rand(images, 1, size, size) < 0.4).float()
    masks[:, :, 0, 0], masks[:, :, 0, 1] = 1, 0
    return masks


@pytest.mark.parametrize("seed", range(3))
def test_background_relevance_is_one_minus_quantus_relevance_mass_accuracy(seed):
    torch.manual_seed(seed)
    relevance, masks = torch.randn(12, 1, 9, 9), smooth_masks(12, 9)
    metric = quantus.RelevanceMassAccuracy(abs=True, normalise=False, disable_warnings=True)
    mass = metric(
        model=nn.Identity(),
        x_batch=np.ones((12, 1, 9, 9)),
        y_batch=np.zeros(12, int),
        a_batch=relevance.numpy(),
        s_batch=masks.numpy().astype(bool),
        device="cpu",
    )
    np.testing.assert_allclose(background_relevance(relevance, masks).numpy(), 1 - np.array(mass), rtol=1e-6)


def test_background_relevance_by_hand():
    relevance = torch.tensor([[[[-3.0, 1.0], [0.0, 4.0]], [[1.0, 1.0], [0.0, 0.0]]]])
    masks = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]]]])
    assert background_relevance(relevance, masks).tolist() == pytest.approx([2 / 10])


def test_background_relevance_is_undefined_without_relevance():
    relevance = torch.zeros(2, 1, 4, 4)
    relevance[1, 0, 0, 0] = 1e-30
    assert background_relevance(relevance, smooth_masks(2, 4)).isnan().tolist() == [True, False]


def test_examination_explains_the_logit_of_the_label():
    torch.manual_seed(0)
    network = backbones.create("resnet_small", 4, 1, 28).eval()
    split = Split(torch.rand(7, 1, 28, 28), smooth_masks(7, 28), torch.tensor([0, 1, 2, 3, 0, 1, 2]))
    found = examine(explainer(PLAIN, network, split.images[:1]), split, np.array([1, 5]), 3, CPU)
    logits, relevance, _ = isnet.LRPFlex(network, epsilon=1e-2, input_rule="zb")(split.images, isnet.EveryLogit())
    chosen = relevance[torch.arange(7), split.labels].detach()
    np.testing.assert_allclose(found.probabilities, logits.softmax(1).detach(), rtol=1e-4)
    shares = background_relevance(chosen, split.masks)
    np.testing.assert_allclose(found.background_relevance, shares, rtol=1e-3)
    np.testing.assert_allclose(found.examples["relevance"], chosen[[1, 5]], rtol=1e-3, atol=1e-6)
    np.testing.assert_array_equal(found.examples["images"], split.images[[1, 5]])
    np.testing.assert_array_equal(found.examples["labels"], [1, 1])
    assert found.background_area == pytest.approx(1 - float(split.masks.mean()))


def test_network_that_lrp_cannot_explain_is_explained_by_gradient_times_input(caplog):
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.GELU(), nn.Flatten(), nn.Linear(3 * 26 * 26, 4)).eval()
    split = Split(torch.rand(5, 1, 28, 28), smooth_masks(5, 28), torch.tensor([0, 1, 2, 3, 0]))
    with caplog.at_level(logging.WARNING):
        explain = explainer(PLAIN, network, split.images[:1])
    assert "Gradient × Input, since LRP does not fit" in caplog.text
    assert "GELU" in caplog.text
    assert explain.name == "Gradient × Input"
    found = examine(explain, split, np.array([0]), 2, CPU)
    np.testing.assert_allclose(found.probabilities, network(split.images).softmax(1).detach(), rtol=1e-5)
    images = split.images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(network(images)[torch.arange(5), split.labels].sum(), images)
    expected = background_relevance(gradient * split.images, split.masks)
    np.testing.assert_allclose(found.background_relevance, expected, rtol=1e-5)


class Blinkered(nn.Module):
    """Shows its classifier the left half alone."""

    def __init__(self):
        super().__init__()
        self.classifier = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4))

    def visible_part(self, images, masks):
        return torch.cat([torch.ones_like(masks[..., :2]), torch.zeros_like(masks[..., :2])], -1)


BLINKERED = Method("blinkered", "", NoHyperparameters, Blinkered, visible=Visible("classifier", Blinkered.visible_part))


def test_what_a_method_hides_from_its_classifier_has_no_relevance():
    torch.manual_seed(0)
    network = Blinkered().eval()
    split = Split(torch.rand(5, 1, 4, 4), smooth_masks(5, 4), torch.tensor([0, 1, 2, 3, 0]))
    chosen = explainer(BLINKERED, network, split.images[:1])
    with torch.no_grad():
        relevance = chosen.explain(*split)
    left = split.images.clone()
    left[..., 2:] = 0
    _, whole, _ = isnet.LRPFlex(network.classifier, epsilon=1e-2, input_rule="zb")(left, isnet.Logit(split.labels))
    torch.testing.assert_close(relevance[..., :2], whole[:, 0, ..., :2].detach())
    assert relevance[..., 2:].count_nonzero() == 0
    assert relevance[..., :2].count_nonzero() > 0


def test_large_test_sets_are_explained_in_part():
    torch.manual_seed(0)
    network = backbones.create("resnet_small", 4, 1, 28).eval()
    split = Split(torch.rand(1001, 1, 28, 28), smooth_masks(1001, 28), torch.arange(1001) % 4)
    found = examine(explainer(PLAIN, network, split.images[:1]), split, np.array([1, 999]), 250, CPU)
    assert found.probabilities.shape == (1001, 4)
    chosen = np.union1d(np.linspace(0, 1000, 500).astype(int), [1, 999])
    assert found.background_relevance.shape == chosen.shape
    _, relevance, _ = isnet.LRPFlex(network, epsilon=1e-2, input_rule="zb")(
        split.images[[999]], isnet.Logit(split.labels[[999]])
    )
    np.testing.assert_allclose(found.examples["relevance"][1], relevance[0, 0].detach(), rtol=1e-3, atol=1e-6)
    share = background_relevance(relevance[:, 0].detach(), split.masks[[999]]).item()
    assert found.background_relevance[np.flatnonzero(chosen == 999)[0]] == pytest.approx(share, rel=1e-3)


def test_share_of_predictions_that_change_with_the_background():
    predictions = {"iid": np.array([0, 1, 2, 3]), "ood": np.array([0, 1, 1, 3]), "deceiving": np.array([1, 1, 2, 3])}
    changes = {"removed": ("iid", "ood"), "swapped": ("iid", "deceiving"), "added": ("ood", "deceiving")}
    found = evaluation._changes(changes, predictions)
    assert found == {
        "background_changes": {"removed": 0.25, "swapped": 0.25, "added": 0.5},
        "prediction_changes": 0.5,
    }
    assert evaluation._changes({}, predictions) == {"background_changes": {}, "prediction_changes": None}


def test_examples_are_spread_over_the_classes():
    labels = np.array([3, 3, 3, 1, 3, 1, 2])
    assert spread(labels, 3).tolist() == [0, 3, 6]
    assert spread(labels, 5).tolist() == [0, 1, 3, 5, 6]
    assert spread(labels, 50).tolist() == list(range(7))


def test_metrics(evaluated, tiny_data):
    metrics = json.loads((evaluated / "metrics.json").read_text())
    record, info = json.loads((evaluated / "run.json").read_text()), datasets.info(tiny_data)
    assert metrics["data"] == info["title"]
    assert metrics["stand_in"] is True
    assert (metrics["row"], metrics["seed"]) == ("resnet", 0)
    assert metrics["explainer"] == "LRP-epsilon with z^B input rule"
    assert metrics["train_seconds"] == record["train_seconds"]
    assert 0 <= metrics["swap_changes"] <= 1
    assert metrics["training_masks"] == datasets.load(tiny_data, "train").labels.bincount(minlength=10).tolist()
    assert list(metrics["sets"]) == info["test_sets"]
    predictions = pd.read_parquet(evaluated / "predictions.parquet")
    for name, found in metrics["sets"].items():
        rows = predictions[predictions["set"] == name]
        assert found["accuracy"] == pytest.approx((rows["label"] == rows["prediction"]).mean())
        assert found["images"] == len(rows) == info["splits"][name]
        assert found["background_area"] == pytest.approx(info["background_area"][name], rel=1e-6)
        assert 0 < found["background_relevance"] < 1
        assert found["images_explained"] == len(rows)
        assert found["images_without_relevance"] == 0


def test_background_changes_are_those_between_the_predictions(evaluated):
    metrics = json.loads((evaluated / "metrics.json").read_text())
    predictions = pd.read_parquet(evaluated / "predictions.parquet").pivot(
        index="index", columns="set", values="prediction"
    )
    assert metrics["background_changes"] == {
        "mark removed": pytest.approx((predictions["iid"] != predictions["ood"]).mean()),
        "mark swapped": pytest.approx((predictions["iid"] != predictions["deceiving"]).mean()),
        "mark added": pytest.approx((predictions["ood"] != predictions["deceiving"]).mean()),
    }
    assert metrics["prediction_changes"] == pytest.approx((predictions.nunique(axis=1) > 1).mean())


def test_an_oracle_is_given_the_masks(tiny_given, tiny_data, tmp_path):
    given = copy.deepcopy(tiny_given)
    given["experiments"]["tiny"]["methods"]["masked_input"] = {}
    config = configuration.check(given, "the test's configuration")
    job = runs.Job(config, "tiny", "masked_input", 0, tiny_data)
    training.train(job, tmp_path, None)
    evaluation.evaluate(job, tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    # The same foregrounds in all sets, and nothing else is seen.
    assert metrics["prediction_changes"] == 0
    assert {found["background_relevance"] for found in metrics["sets"].values()} == {0}
    # Validation was with masks, too.
    best = json.loads((tmp_path / "run.json").read_text())["best_epoch"]
    network, _ = runs.trained(job, tmp_path)
    images, masks, labels = datasets.load(tiny_data, "val")
    right = float((network(images, masks).argmax(1) == labels).float().mean())
    assert pd.read_csv(tmp_path / "history.csv").set_index("epoch").loc[best, "val_accuracy"] == pytest.approx(right)


def test_images_without_a_mask_are_classified_and_no_more(tiny_given, tiny_data, tmp_path):
    data = shutil.copytree(tiny_data, tmp_path / "data")
    for split, images in (("train", slice(0, 30)), ("iid", slice(0, 5)), ("ood", slice(None))):
        masks = np.load(data / f"{split}.masks.npy")
        masks[images] = NO_MASK
        np.save(data / f"{split}.masks.npy", masks)
    told = json.loads((data / "data.json").read_text())
    write_json(data / "data.json", {**told, "digests": {}})
    section = {**tiny_given["experiments"]["tiny"], "methods": {"rrr": {}}}
    config = configuration.check({**tiny_given, "experiments": {"tiny": section}}, "the test's configuration")
    job = runs.Job(config, "tiny", "rrr", 0, data)
    training.train(job, tmp_path, None)
    evaluation.evaluate(job, tmp_path)
    sets = json.loads((tmp_path / "metrics.json").read_text())["sets"]
    assert [sets[name]["images_without_relevance"] for name in ("iid", "ood", "deceiving")] == [5, 30, 0]
    assert (sets["ood"]["background_relevance"], sets["ood"]["background_area"]) == (None, None)
    assert 0 < sets["iid"]["background_relevance"] < 1


def test_predictions(evaluated, tiny_data):
    predictions = pd.read_parquet(evaluated / "predictions.parquet")
    probabilities = [f"prob_{label}" for label in range(10)]
    assert list(predictions) == ["set", "index", "label", "prediction", *probabilities]
    np.testing.assert_allclose(predictions[probabilities].sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(predictions[probabilities].to_numpy().argmax(1), predictions["prediction"])
    for name, rows in predictions.groupby("set"):
        np.testing.assert_array_equal(rows["index"], range(30))
        np.testing.assert_array_equal(rows["label"], datasets.load(tiny_data, name).labels)


def test_heatmaps(evaluated, tiny_data):
    with np.load(evaluated / "heatmaps.npz") as stored:
        arrays = dict(stored)
    kinds = ("images", "masks", "relevance", "labels")
    assert set(arrays) == {f"{name}_{kind}" for name in ("iid", "ood", "deceiving") for kind in kinds}
    assert {arrays[f"iid_{kind}"].shape for kind in kinds[:3]} == {(8, 1, 28, 28)}
    assert {arrays[f"iid_{kind}"].dtype for kind in kinds[:3]} == {np.dtype("float32")}
    assert len(np.unique(arrays["iid_labels"])) == 8
    # The same digits in every set, so that figures can show them side by side.
    np.testing.assert_array_equal(arrays["iid_masks"], arrays["deceiving_masks"])
    assert not np.array_equal(arrays["iid_images"], arrays["deceiving_images"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("run.json", None, r"run.json is missing: train this method with this seed again"),
        ("run.json", '{"source": "0"}', r"was trained with other code of its method than there is now: train"),
        ("run.json", "{", r"run.json cannot be read \(.*\): train this method"),
        ("run.json", '{"data": {}}', r"was trained on other data than the prepared data are now: train"),
        ("weights.safetensors", None, r"weights.safetensors is missing: train"),
        ("weights.safetensors", "?", r"weights.safetensors is damaged, or belongs to something else: delete"),
        ("history.csv", "?", r"history.csv is damaged"),
    ],
)
def test_missing_or_damaged_runs(evaluated, tiny_config, tiny_data, tmp_path, name, content, message):
    for path in evaluated.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "metrics.json").unlink()
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(BenchError, match=message):
        evaluation.evaluate(runs.Job(tiny_config, "tiny", "resnet", 0, tiny_data), tmp_path)
    assert not (tmp_path / "metrics.json").exists()


@pytest.mark.parametrize(
    ("row", "seed", "names", "message"),
    [
        ("resnet", 1, ["weights.safetensors"], "weights.safetensors is damaged, or belongs to something else"),
        ("resnet", 1, ["weights.safetensors", "run.json"], "was trained with another seed"),
        ("stochastic_isnet", 0, ["weights.safetensors", "run.json"], "was trained with another row"),
    ],
)
def test_files_of_another_run_are_refused(evaluated, tiny_config, tiny_data, tmp_path, row, seed, names, message):
    training.train(runs.Job(tiny_config, "tiny", row, seed, tiny_data), tmp_path / "other", None)
    shutil.copytree(evaluated, tmp_path / "run")
    for name in names:
        shutil.copy(tmp_path / "other" / name, tmp_path / "run" / name)
    with pytest.raises(BenchError, match=message):
        evaluation.evaluate(runs.Job(tiny_config, "tiny", "resnet", 0, tiny_data), tmp_path / "run")


def test_metrics_name_what_they_are_of(evaluated):
    files = json.loads((evaluated / "metrics.json").read_text())["files"]
    names = {"weights.safetensors", "history.csv", "predictions.parquet", "heatmaps.npz"}
    assert files == {name: hashlib.sha256((evaluated / name).read_bytes()).hexdigest() for name in names}
