"""Intervals and tests on constructed data with known answers."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.special import expit

from isnet_bench.evaluation.metrics import CONFUSION_METRICS
from isnet_bench.reporting import statistics
from isnet_bench.reporting.statistics import crossed


def frame(correct, test_set="iid"):
    """Predictions of ten classes that are right where a method's array (seeds, images) says so."""
    tables = []
    for method, right in correct.items():
        seed, index = np.indices(right.shape).reshape(2, -1)
        label = index % 10
        predicted = np.where(right.ravel(), label, (label + 1) % 10)
        table = {"seed": seed, "index": index, "label": label, "prediction": predicted}
        tables.append(pd.DataFrame({"method": method, "set": test_set, **table}))
    return pd.concat(tables, ignore_index=True)


def draw(generator, methods, seeds, images, between_seeds, strength=1.5, shift=None):
    """1 where right, shape (methods, seeds, images): images differ in difficulty, seeds in strength."""
    difficulty = generator.normal(0, 1.5, images)
    effect = generator.normal(0, between_seeds, (methods, seeds, 1))
    shift = np.zeros(methods) if shift is None else np.asarray(shift, dtype=float)
    chance = expit(strength + shift[:, None, None] + effect + difficulty)
    return (generator.random((methods, seeds, images)) < chance).astype(float)


def test_t_interval_of_a_hand_worked_example():
    # Mean 2, standard deviation 1, standard error 1 / sqrt(3), t quantile of 2 degrees of freedom 4.302653.
    found = statistics.seed_interval([1, 2, 3])
    assert found.value == pytest.approx(2)
    assert (found.low, found.high) == pytest.approx((2 - 2.484138, 2 + 2.484138))


def test_a_single_seed_has_no_bounds_and_equal_seeds_no_width():
    assert statistics.seed_interval([0.5]) == pytest.approx((0.5, np.nan, np.nan), nan_ok=True)
    assert statistics.seed_interval([0.5, 0.5, 0.5]) == (0.5, 0.5, 0.5)


def test_crossed_of_a_hand_worked_example():
    # By seed: means 2, 4, mean square 4 * 2 = 8. By image: 1, 2, 4, 5, mean square 2 * 10 / 3. Rest: residuals +-0.5
    # except where the rows are parallel, sum of squares 2, mean square 2 / 3. Total 8 + 20 / 3 - 2 / 3 = 14.
    found = crossed(np.array([[0.5, 0.5, 3.5, 3.5], [1.5, 3.5, 4.5, 6.5]]))
    assert found.mean == pytest.approx(3)
    assert found.error == pytest.approx(np.sqrt(14 / 8))
    assert found.freedom == pytest.approx((14 / 8) ** 2)
    half = stats.t.ppf(0.975, (14 / 8) ** 2) * np.sqrt(14 / 8)
    assert found.interval == pytest.approx((3, 3 - half, 3 + half))
    assert found.p_value == pytest.approx(2 * stats.t.sf(3 / np.sqrt(14 / 8), (14 / 8) ** 2))


def test_with_a_single_seed_it_is_the_paired_t_test_over_images():
    scores = np.random.default_rng(0).normal(0.2, 1, (1, 50))
    expected = stats.ttest_1samp(scores[0], 0)
    found = crossed(scores)
    assert found.p_value == pytest.approx(expected.pvalue)
    assert found.interval[1:] == pytest.approx(tuple(expected.confidence_interval(0.95)))


def test_where_images_do_not_matter_it_is_the_t_test_over_seeds():
    scores = np.repeat(np.random.default_rng(1).normal(0.5, 1, (6, 1)), 40, axis=1)
    expected = stats.ttest_1samp(scores[:, 0], 0)
    found = crossed(scores)
    assert found.freedom == pytest.approx(5)
    assert found.p_value == pytest.approx(expected.pvalue)
    assert found.interval == pytest.approx(statistics.seed_interval(scores[:, 0]))


def test_seeds_that_agree_by_chance_do_not_leave_the_error_zero():
    # Both seeds differ on three images of eight, on others each, and by the same amount in sum.
    scores = np.array([[1.0, 1, -1, 0, 0, 0, 0, 0], [0, 0, 0, 1, 1, -1, 0, 0]])
    found = crossed(scores)
    assert found.error > 0.05
    assert found.p_value > 0.3


def test_no_difference_at_all_and_a_difference_everywhere():
    assert crossed(np.zeros((2, 9))).p_value == 1
    assert crossed(np.zeros((2, 9))).interval == (0, 0, 0)
    assert crossed(np.ones((2, 9))).p_value == 0


@pytest.mark.parametrize("seeds", [1, 2, 3, 5])
@pytest.mark.parametrize("between_seeds", [0.0, 0.4])
def test_identical_methods_differ_at_the_nominal_rate_at_most(seeds, between_seeds):
    generator = np.random.default_rng(seeds)
    if seeds == 1:
        between_seeds = 0.0  # a single seed says nothing about others
    p = []
    for _ in range(500):
        first, second = draw(generator, 2, seeds, 200, between_seeds)
        p.append(crossed(first - second).p_value)
    rates = np.mean(np.array(p)[:, None] < [0.01, 0.05, 0.2], axis=0)
    assert (rates < [0.025, 0.075, 0.245]).all()
    if seeds in (1, 5) and (between_seeds or seeds == 1):
        assert (rates > [0.0, 0.02, 0.14]).all()


def test_images_alone_would_call_seeds_a_difference():
    """Why seeds are a factor: the plain paired test over images rejects identical methods far too often."""
    generator = np.random.default_rng(7)
    draws = [draw(generator, 2, 3, 200, 0.6) for _ in range(200)]
    naive = [stats.ttest_1samp((first - second).mean(0), 0).pvalue < 0.05 for first, second in draws]
    found = [crossed(first - second).p_value < 0.05 for first, second in draws]
    assert np.mean(naive) > 0.25
    assert np.mean(found) < 0.09


@pytest.mark.parametrize(("seeds", "shift", "power"), [(1, 1, 0.9), (2, 4, 0.9), (3, 1, 0.9), (5, 1, 0.97)])
def test_shifted_methods_are_told_apart(seeds, shift, power):
    generator = np.random.default_rng(seeds)
    found = []
    for _ in range(100):
        first, second = draw(generator, 2, seeds, 600, 0.1, shift=[shift, 0])
        found.append(crossed(first - second))
    assert np.mean([one.p_value < 0.05 and one.mean > 0 for one in found]) > power


@pytest.mark.parametrize(("seeds", "between_seeds"), [(2, 0.2), (3, 0.6), (5, 0.2)])
def test_intervals_over_seeds_and_images_hold_the_expectation(seeds, between_seeds):
    generator = np.random.default_rng(8)
    truth = expit(1.5 + generator.normal(0, np.hypot(between_seeds, 1.5), 400_000)).mean()
    found = [crossed(draw(generator, 1, seeds, 150, between_seeds)[0]).interval for _ in range(400)]
    assert 0.915 < np.mean([low <= truth <= high for _, low, high in found]) <= 1


def test_estimates_have_a_row_for_each_set_and_method():
    generator = np.random.default_rng(10)
    first, second = draw(generator, 2, 3, 80, 0.2)
    shuffled = pd.concat([frame({"b": first, "a": second}), frame({"b": second, "a": 1 + 0 * first}, "ood")])
    table = statistics.estimates(shuffled)
    assert table[["set", "method"]].to_numpy().tolist() == [["iid", "b"], ["iid", "a"], ["ood", "b"], ["ood", "a"]]
    assert table["value"].to_numpy() == pytest.approx([first.mean(), second.mean(), second.mean(), 1])
    assert set(table["seeds"]) == {3}
    assert set(table["images"]) == {80}
    assert tuple(table.loc[0, ["low", "high"]]) == pytest.approx(crossed(first).interval[1:])
    again = statistics.estimates(shuffled.iloc[::-1]).set_index(["set", "method"])
    pd.testing.assert_frame_equal(again.sort_index(), table.set_index(["set", "method"]).sort_index())


def confused(generator, images, seeds=1):
    """Cells of a confusion matrix of three classes, the third of which is rare and often missed."""
    labels = generator.choice(3, images, p=[0.5, 0.35, 0.15])
    hit = generator.random((seeds, images)) < np.array([0.9, 0.75, 0.5])[labels]
    return labels * 3 + np.where(hit, labels, generator.integers(3, size=(seeds, images)))


def metric_of(cells, name):
    return CONFUSION_METRICS[name](np.bincount(cells, minlength=9).reshape(3, 3))


def test_pseudovalues_of_the_accuracy_say_which_images_are_right():
    (cells,) = confused(np.random.default_rng(16), 50)
    right = (cells // 3 == cells % 3).astype(float)
    assert (statistics.pseudovalues(cells, 3, "accuracy") == right).all()


@pytest.mark.parametrize("name", ["macro_f1", "balanced_accuracy"])
def test_pseudovalues_are_the_jackknifes_about_the_metric(name):
    (cells,) = confused(np.random.default_rng(17), 60)
    found = statistics.pseudovalues(cells, 3, name)
    left_out = np.array([metric_of(np.delete(cells, place), name) for place in range(60)])
    plain = 60 * metric_of(cells, name) - 59 * left_out
    assert found.mean() == pytest.approx(metric_of(cells, name))
    assert found - found.mean() == pytest.approx(plain - plain.mean(), abs=1e-7)


@pytest.mark.parametrize("name", ["macro_f1", "balanced_accuracy"])
def test_errors_of_other_metrics_are_those_of_repeated_draws(name):
    generator = np.random.default_rng(18)
    draws = [confused(generator, 300)[0] for _ in range(400)]
    spread = np.std([metric_of(cells, name) for cells in draws])
    errors = [crossed(statistics.pseudovalues(cells, 3, name)[None]).error for cells in draws[:40]]
    assert np.mean(errors) == pytest.approx(spread, rel=0.1)


def test_other_metrics_are_estimated_and_compared():
    generator = np.random.default_rng(19)
    cells = confused(generator, 200, seeds=4)
    tables = [
        pd.DataFrame({"index": np.arange(200), "label": row // 3, "prediction": guess, "seed": seed, "method": name})
        for seed, row in enumerate(cells)
        for name, guess in (("net", row % 3), ("constant", 0 * row))
    ]
    predictions = pd.concat(tables).assign(set="iid")
    table = statistics.estimates(predictions, "macro_f1").set_index("method")
    assert table.loc["net", "value"] == pytest.approx(np.mean([metric_of(row, "macro_f1") for row in cells]))
    share = np.mean(cells[0] // 3 == 0)
    assert table.loc["constant", "value"] == pytest.approx(2 * share / (1 + share) / 3)
    (row,) = statistics.pairwise(predictions, "macro_f1").itertuples()
    assert row.difference == pytest.approx(table.loc["net", "value"] - table.loc["constant", "value"])
    assert row.p < 0.001


def test_bounds_of_estimates_are_cut_to_fractions():
    (row,) = statistics.estimates(frame({"a": np.array([[1, 1, 1, 1, 1, 0.0], [1, 1, 1, 1, 1, 1]])})).itertuples()
    assert (row.low, row.high) == (0, 1)


def test_pairs_are_compared_on_the_same_images():
    generator = np.random.default_rng(11)
    a, b, c = draw(generator, 3, 3, 300, 0.0, shift=[0.8, 0, 0])
    pairs = statistics.pairwise(frame({"a": a, "b": b, "c": c}))
    assert pairs[["method", "other"]].to_numpy().tolist() == [["a", "b"], ["a", "c"], ["b", "c"]]
    row = pairs.iloc[0]
    assert row["difference"] == pytest.approx(a.mean() - b.mean())
    assert row["value"] == pytest.approx(a.mean())
    assert row["other_value"] == pytest.approx(b.mean())
    assert tuple(row[["low", "high"]]) == pytest.approx(crossed(a - b).interval[1:])
    assert row["p"] == pytest.approx(crossed(a - b).p_value)
    # Holm (1979): the smallest p times 3, the next times 2, and none smaller than one before it.
    p, order = pairs["p"].to_numpy(), np.argsort(pairs["p"].to_numpy())
    corrected = np.minimum(np.maximum.accumulate(p[order] * [3, 2, 1]), 1)
    assert pairs["p_holm"].to_numpy()[order] == pytest.approx(corrected, abs=0)


def test_holm_corrects_within_each_test_set():
    generator = np.random.default_rng(12)
    a, b = draw(generator, 2, 3, 200, 0.0, shift=[0.5, 0])
    pairs = statistics.pairwise(pd.concat([frame({"a": a, "b": b}, name) for name in ("iid", "ood")]))
    assert (pairs["p"] == pairs["p_holm"]).all()


def test_the_best_candidate_is_the_reference_on_each_test_set():
    generator = np.random.default_rng(13)
    good, fair, poor = (draw(generator, 1, 3, 100, 0, strength)[0] for strength in (4, 1.5, -1))
    methods = ["plain", "isnet", "variant"]
    iid = frame(dict(zip(methods, (good, fair, poor), strict=True)))
    ood = frame(dict(zip(methods, (poor, fair, good), strict=True)), "ood")
    found = statistics.against_best(statistics.pairwise(pd.concat([iid, ood])), {"isnet", "variant", "elsewhere"})
    rows = {(row.set, row.method): row for row in found.itertuples()}
    assert [(*key, row.other) for key, row in rows.items()] == [
        ("iid", "plain", "isnet"),
        ("iid", "variant", "isnet"),
        ("ood", "plain", "variant"),
        ("ood", "isnet", "variant"),
    ]
    row = rows["iid", "variant"]
    assert row.difference == pytest.approx(poor.mean() - fair.mean())
    assert (row.value, row.other_value) == pytest.approx((poor.mean(), fair.mean()))
    assert row.low < row.difference < row.high < 0
    assert (row.low, row.high) == pytest.approx(crossed(poor - fair).interval[1:])
    assert statistics.against_best(statistics.pairwise(iid), {"elsewhere"}).empty


def test_a_method_alone_is_not_compared():
    pairs = statistics.pairwise(frame({"a": np.ones((2, 5))}))
    assert pairs.empty
    assert statistics.against_best(pairs, {"a"}).empty
    assert statistics.best_marks(pairs) == {}


@pytest.mark.slow
def test_picking_the_best_after_the_fact_does_not_raise_the_error_rate():
    generator = np.random.default_rng(14)
    sets = []
    for name in range(80):
        methods = draw(generator, 5, 1, 120, 0.0)
        sets.append(frame({str(place): right for place, right in enumerate(methods)}, name))
    pairs = statistics.pairwise(pd.concat(sets))
    best = statistics.against_best(pairs, {"0", "1", "2", "3"})
    assert (best["p"] < 0.05).groupby(best["set"]).any().mean() > 0.15
    assert (best["p_holm"] < 0.05).groupby(best["set"]).any().mean() < 0.1
    assert np.mean([mark is not None for mark in statistics.best_marks(pairs).values()]) < 0.1


def test_the_best_is_marked_where_the_runner_up_is_significantly_behind():
    generator = np.random.default_rng(15)
    good, fair, other = draw(generator, 3, 3, 400, 0.0, shift=[1.5, 0, 0])
    clear = frame({"fair": fair, "other": other, "good": good})
    close = frame({"other": other, "fair": fair}, "ood")
    tied = frame({"good": good, "again": good}, "deceiving")
    marks = {}
    for predictions in (clear, close, tied):
        marks |= statistics.best_marks(statistics.pairwise(predictions))
    assert marks == {"iid": "good", "ood": None, "deceiving": None}


def test_who_does_not_compete_is_neither_best_nor_runner_up():
    generator = np.random.default_rng(15)
    good, better, fair = draw(generator, 3, 3, 400, 0.0, shift=[1.5, 1.5, 0])
    pairs = statistics.pairwise(frame({"fair": fair, "better": better, "good": good}))
    assert statistics.best_marks(pairs) == {"iid": None}
    assert statistics.best_marks(pairs, {"better"}) == {"iid": "good"}
    assert statistics.best_marks(pairs, {"better", "fair"}) == {}


def test_methods_on_different_data_are_not_compared():
    right = np.ones((2, 5))
    both = frame({"a": right, "b": right})
    mean = [statistics.estimates, statistics.pairwise]
    for change, said in [
        (both[(both["method"] == "a") | (both["seed"] == 0)], "different seeds"),
        (both[(both["method"] == "a") | (both["index"] > 0)], "lack images"),
        (pd.concat([both, both.iloc[:1]]), "twice"),
        (both.assign(label=both["label"] + both["seed"]), "label"),
    ]:
        for function in mean:
            with pytest.raises(ValueError, match=said):
                function(change)
    with pytest.raises(ValueError, match="at least two"):
        crossed(np.ones((3, 1)))
