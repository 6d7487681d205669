"""Metrics of one test set against scikit-learn, hand-worked numbers and simulated truths."""

import json
import time
from itertools import pairwise

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score

from isnet_bench.evaluation.metrics import CONFUSION_METRICS, classification


def draw(generator, images, classes=3, strength=1.0):
    """Labels and probabilities of a classifier that is right more often than not."""
    labels = generator.integers(classes, size=images)
    logits = generator.normal(size=(images, classes))
    logits[np.arange(images), labels] += strength
    exponential = np.exp(logits)
    return labels, exponential / exponential.sum(1, keepdims=True)


def test_values_of_a_hand_worked_example():
    # Predictions: 0, 0, 1 | 1, 1 | 0 for labels 0, 0, 0 | 1, 1 | 2.
    labels = np.array([0, 0, 0, 1, 1, 2])
    probabilities = np.array(
        [[0.8, 0.1, 0.1], [0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.2, 0.7, 0.1], [0.1, 0.8, 0.1], [0.5, 0.1, 0.4]]
    )
    found = classification(labels, probabilities, resamples=20)
    assert found["confusion"] == [[2, 1, 0], [0, 2, 0], [1, 0, 0]]
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert found["balanced_accuracy"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert found["macro_f1"] == pytest.approx((2 / 3 + 4 / 5 + 0) / 3)
    # One against the rest: 0 wins 8 of 9 pairs, 1 all of 8, 2 all of 5.
    assert found["auc"] == pytest.approx((8 / 9 + 1 + 1) / 3)
    assert found["per_class"] == [
        {"precision": pytest.approx(2 / 3), "recall": pytest.approx(2 / 3), "specificity": 2 / 3, "support": 3},
        {"precision": pytest.approx(2 / 3), "recall": 1.0, "specificity": 3 / 4, "support": 2},
        {"precision": None, "recall": 0.0, "specificity": 1.0, "support": 1},
    ]


def test_absent_classes_are_left_out_and_undefined_numbers_are_null():
    labels = np.array([0, 0, 0, 1, 1, 1])
    probabilities = np.eye(4)[[0, 0, 2, 1, 1, 0]]
    found = json.loads(json.dumps(classification(labels, probabilities, resamples=50), allow_nan=False))
    assert found["balanced_accuracy"] == pytest.approx(2 / 3)
    assert found["macro_f1"] == pytest.approx((4 / 6 + 4 / 5) / 2)
    assert found["auc"] is None
    assert found["per_class"][2] == {"precision": 0.0, "recall": None, "specificity": 5 / 6, "support": 0}
    assert found["per_class"][3] == {"precision": None, "recall": None, "specificity": 1.0, "support": 0}


def test_a_single_class_has_no_auc_and_no_specificity():
    found = classification(np.array([0, 0]), np.array([[1.0, 0.0], [0.0, 1.0]]), resamples=20)
    assert found["auc"] is None
    assert found["per_class"][0]["specificity"] is None


@pytest.mark.parametrize("classes", [2, 5])
def test_values_agree_with_scikit_learn(classes):
    labels, probabilities = draw(np.random.default_rng(classes), 300, classes)
    found = classification(labels, probabilities, resamples=20)
    predictions = probabilities.argmax(1)
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, predictions))
    assert found["macro_f1"] == pytest.approx(f1_score(labels, predictions, average="macro"))
    area = (
        roc_auc_score(labels, probabilities[:, 1])
        if classes == 2
        else roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
    )
    assert found["auc"] == pytest.approx(area)


@pytest.mark.parametrize("name", ["accuracy", "macro_f1", "balanced_accuracy"])
def test_metrics_of_stacked_confusion_matrices_agree_with_the_classification(name):
    generator = np.random.default_rng(1)
    sets = []
    for classes in ([0, 1, 2, 3], [0, 2], [1, 2, 3]):
        labels, probabilities = generator.choice(classes, 40), generator.random((40, 4))
        sets.append(classification(labels, probabilities, resamples=20))
    metric = CONFUSION_METRICS[name](np.array([one["confusion"] for one in sets]))
    np.testing.assert_allclose(metric, [one[name] for one in sets])


def f1(truth, predicted):
    return 2 * (truth & predicted).sum() / (truth.sum() + predicted.sum())


def test_bootstrap_intervals_agree_with_resampling_images_within_classes():
    generator = np.random.default_rng(2)
    labels, probabilities = draw(generator, 240)
    labels = np.where((labels == 2) & (generator.random(240) < 0.7), 0, labels)  # a rare class
    found = classification(labels, probabilities, resamples=4000)
    members = [np.flatnonzero(labels == k) for k in range(3)]
    predictions, values = probabilities.argmax(1), []
    for _ in range(400):
        drawn = np.concatenate([generator.choice(one, len(one)) for one in members])
        values.append(np.mean([f1(labels[drawn] == k, predictions[drawn] == k) for k in range(3)]))
    low, high = found["macro_f1_interval"]
    assert low < found["macro_f1"] < high
    assert high - low == pytest.approx(2 * 1.96 * np.std(values), rel=0.12)
    assert (low + high) / 2 == pytest.approx(np.mean(values), abs=0.01)
    shares = np.array([one["recall"] for one in found["per_class"]])
    variance = sum(len(one) * p * (1 - p) for one, p in zip(members, shares, strict=True)) / 240**2
    low, high = found["accuracy_interval"]
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(variance), rel=0.05)


def test_intervals_follow_from_the_seed():
    data = draw(np.random.default_rng(3), 100)
    assert classification(*data, seed=1) == classification(*data, seed=1)
    assert classification(*data, seed=1)["macro_f1_interval"] != classification(*data, seed=2)["macro_f1_interval"]


def test_perfect_predictions_leave_the_intervals_no_width():
    found = classification(np.repeat([0, 1], 5), np.eye(2)[np.repeat([0, 1], 5)])
    assert found["auc"] == 1
    for name in ("accuracy", "macro_f1", "balanced_accuracy"):
        assert found[name] == 1
        assert found[f"{name}_interval"] == [1, 1]


def test_2000_images_of_10_classes_take_less_than_2_seconds():
    data = draw(np.random.default_rng(8), 2000, 10)
    start = time.process_time()
    classification(*data)
    assert time.process_time() - start < 2


def test_rare_classes_stay_in_every_resample():
    labels = np.repeat([0, 1], [60, 2])
    probabilities = np.eye(2)[np.where(np.arange(62) < 60, 0, 1)]
    probabilities[0] = 0, 1
    low, high = classification(labels, probabilities)["balanced_accuracy_interval"]
    assert 0.95 < low <= high == 1


@pytest.mark.parametrize(
    ("labels", "probabilities", "said"),
    [
        ([0, 1], [[0.5, 0.5]], "expected"),
        ([], np.empty((0, 2)), "expected"),
        ([0, 2], [[0.5, 0.5], [0.5, 0.5]], r"integers in 0 \.\.\. 1"),
        ([0.0, 1.0], [[0.5, 0.5], [0.5, 0.5]], "integers"),
        ([0, 1], [[0.5, 0.5], [np.nan, 0.5]], "not finite"),
    ],
)
def test_input_that_makes_no_sense_is_refused(labels, probabilities, said):
    with pytest.raises(ValueError, match=said):
        classification(np.array(labels), np.array(probabilities))


def test_more_images_make_narrower_intervals():
    generator = np.random.default_rng(9)
    widths = []
    for images in (50, 500, 5000):
        found = classification(*draw(generator, images), resamples=300)
        widths.append([np.ptp(found[f"{name}_interval"]) for name in ("accuracy", "macro_f1")])
    for wide, narrow in pairwise(widths):
        assert (np.array(wide) > 2 * np.array(narrow)).all()
