"""The trade-off figure: its numbers by hand, and labels that cover nothing."""

import matplotlib
import numpy as np
import pytest
import reporting_runs
from matplotlib.colors import to_hex
from reporting_runs import LABELS, change
from scipy import stats

from isnet_bench.reporting import collect, comparison, labels, statistics, style, tradeoff

config, results, drawn = reporting_runs.config, reporting_runs.results, reporting_runs.drawn


def _summary(config, results):
    runs = collect.runs(config, "mnist", results)
    return tradeoff.summary(runs, comparison.predictions(runs, results))


def _texts(panel):
    return sorted(text.get_text() for text in panel.texts)


def test_summary_has_the_score_and_the_time_with_intervals(config, results):
    table = _summary(config, results)
    assert list(table.index) == ["resnet", "original_isnet", "stochastic_isnet", "stochastic_isnet_f8"]
    frame = comparison.predictions(collect.runs(config, "mnist", results), results)
    expected = statistics.estimates(frame).set_index(["set", "method"]).loc["ood"]
    np.testing.assert_allclose(
        table[["score", "score_low", "score_high"]], 100 * expected.loc[table.index, ["value", "low", "high"]]
    )
    # Every row took 20, 22 and 24 s.
    logs = np.log([20, 22, 24])
    half = stats.t.ppf(0.975, 2) * logs.std(ddof=1) / np.sqrt(3)
    expected = np.exp([logs.mean(), logs.mean() - half, logs.mean() + half])
    np.testing.assert_allclose(table[["seconds", "seconds_low", "seconds_high"]], np.tile(expected, (4, 1)))


def test_figure_shows_every_row_with_intervals_in_both_directions(config, results, drawn):
    for place, row in enumerate(LABELS):
        for seed in config["seeds"]:
            change(results, row, seed, train_seconds=20.0 * 2**place + seed)
    table = _summary(config, results)
    tradeoff.draw(config, "mnist", results, results / "t")
    (panel,) = drawn[0].axes
    assert panel.get_xscale() == "log"
    assert panel.get_ylabel() == "Accuracy, ood (%)"
    assert _texts(panel) == sorted(LABELS.values())
    looks = style.method_looks()
    points = {to_hex(bar[0].get_color()): bar[0].get_xydata()[0] for bar in panel.containers}
    np.testing.assert_allclose(points[looks["resnet"].color.lower()], table.loc["resnet", ["seconds", "score"]])
    _, _, (lying, upright) = panel.containers[0]
    np.testing.assert_allclose(lying.get_segments()[0][:, 0], table.loc["resnet", ["seconds_low", "seconds_high"]])
    np.testing.assert_allclose(upright.get_segments()[0][:, 1], table.loc["resnet", ["score_low", "score_high"]])
    title = " ".join(drawn[0].get_suptitle().split())
    assert title.startswith("MNIST with a synthetic background bias Data: MNIST 3 seeds; bars: 95 % intervals")


def test_many_rows_close_to_the_best_one_are_enlarged(config, results, drawn, monkeypatch):
    monkeypatch.setattr(tradeoff, "_CROWD", 3)
    tradeoff.draw(config, "mnist", results, results / "t")
    whole, part = drawn[0].axes
    assert _texts(whole) == [LABELS["resnet"]]
    assert len(whole.containers) == 4
    assert _texts(part) == sorted(label for row, label in LABELS.items() if row != "resnet")
    assert len(part.containers) == 3


def test_one_seed_has_no_interval_of_the_time_and_says_so(config, results, drawn):
    config["seeds"] = [1]
    tradeoff.draw(config, "mnist", results, results / "t")
    _, _, bars = drawn[0].axes[0].containers[0]
    assert len(bars) == 1
    assert "1 seed; bars: 95 % intervals over test images" in drawn[0].get_suptitle()


def test_stand_in_data_and_the_score_are_named(config, results, drawn):
    config["experiments"]["mnist"]["score"] = "macro_f1"
    for row in LABELS:
        for seed in config["seeds"]:
            change(results, row, seed, data="digits (stand-in for MNIST)", stand_in=True)
    tradeoff.draw(config, "mnist", results, results / "t")
    assert drawn[0].get_suptitle().startswith("STAND-IN DATA: MNIST")
    assert drawn[0].axes[0].get_ylabel() == "Macro F1, ood (%)"


@pytest.fixture
def panel():
    with matplotlib.rc_context(style.RC):
        fig = style.figure(90)
        panel = fig.subplots()
    panel.set(xlim=(0, 1), ylim=(0, 1))
    fig.draw_without_rendering()
    return panel


def _boxes(panel, written):
    panel.figure.draw_without_rendering()
    return [matplotlib.text.Text.get_window_extent(text) for text in written]


def test_labels_cover_neither_each_other_nor_markers(panel):
    # A crowd in the middle: written to the right of their markers, these labels would overlap.
    points = np.column_stack([0.4 + 0.02 * np.arange(8), 0.5 + 0.01 * (np.arange(8) % 3)])
    written = labels.place(panel, points, [f"Method number {k}" for k in range(8)], np.full((8, 2, 2), np.nan))
    boxes, markers = _boxes(panel, written), panel.transData.transform(points)
    for place, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[place + 1 :])
        assert not any(box.contains(*marker) for marker in markers)
        assert panel.get_window_extent().contains(*box.min)
        assert panel.get_window_extent().contains(*box.max)
    # Lines lead to those that are not beside their markers.
    assert 0 < sum(text.arrow_patch is not None for text in written) < 8


def test_labels_keep_off_bars(panel):
    span = np.array([[[0.1, 0.9], [0.5, 0.5]]])
    (written,) = labels.place(panel, np.array([[0.5, 0.5]]), ["A label"], span)
    (box,) = _boxes(panel, [written])
    at = panel.transData.transform([0.5, 0.5])[1]
    assert not box.y0 < at < box.y1
    assert written.arrow_patch is None


def test_places_are_the_same_every_time(panel):
    points = np.random.default_rng(0).random((12, 2))
    spans = np.full((12, 2, 2), np.nan)
    first, second = (labels.place(panel, points, [str(k) * 9 for k in range(12)], spans) for _ in range(2))
    assert [text.get_position() for text in first] == [text.get_position() for text in second]
