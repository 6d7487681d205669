"""Figures from run folders that the tests write themselves, and their look."""

import itertools
import json
import re

import matplotlib.image
import numpy as np
import pytest
import reporting_runs
from matplotlib.colors import to_hex
from reporting_runs import LABELS, SETS, stored_heatmaps
from scipy import stats

from isnet_bench.config import Row, catalog
from isnet_bench.io.errors import BenchError
from isnet_bench.reporting import figures, runs, statistics, style

bench, drawn = reporting_runs.bench, reporting_runs.drawn


def test_accuracy_figure_shows_every_seed_mean_and_spread(bench, drawn):
    figures.accuracy(bench.read(), bench.root / "a")
    panels = drawn[0].axes
    assert [panel.get_title() for panel in panels] == list(SETS)
    assert [tick.get_text().replace("\n", " ") for tick in panels[0].get_yticklabels()] == list(LABELS.values())
    seeds = [line.get_xdata() for line in panels[1].lines if line.get_marker() == "."]
    np.testing.assert_allclose(seeds[0], [33.8, 34.8, 35.8])
    assert len(seeds) == len(LABELS)
    _, _, (whisker,) = panels[1].containers[0]
    np.testing.assert_allclose(whisker.get_segments()[0][:, 0], [33.8, 35.8])
    assert "34.8" in [text.get_text() for text in panels[1].texts]


def test_accuracy_figure_of_one_seed_shows_intervals_over_test_images(bench, drawn):
    bench.raw["seeds"] = [0]
    sets = json.loads((bench.run("resnet", 0) / "metrics.json").read_text())["sets"]
    sets["ood"]["accuracy_interval"] = [0.3, 0.41]
    bench.change("resnet", 0, sets=sets)
    figures.accuracy(bench.read(), bench.root / "a")
    panel = drawn[0].axes[1]
    _, _, (whisker,) = panel.containers[0]
    np.testing.assert_allclose(whisker.get_segments()[0][:, 0], [30, 41])
    assert not [line for line in panel.lines if line.get_marker() == "."]
    assert "95 % over test images" in " ".join(drawn[0].get_suptitle().split())


def test_more_rows_than_a_column_has_room_for_take_a_page(bench, drawn, monkeypatch):
    figures.accuracy(bench.read(), bench.root / "a")
    monkeypatch.setattr(figures, "_COLUMN_ROWS", 3)
    figures.accuracy(bench.read(), bench.root / "a")
    sizes = [25.4 * fig.get_figwidth() for fig in drawn]
    np.testing.assert_allclose(sizes, [style.COLUMN_MM, style.PAGE_MM])
    labels = [[tick.get_text() for tick in fig.axes[0].get_yticklabels()] for fig in drawn]
    assert max(label.count("\n") for label in labels[0]) == 1
    assert labels[1] == list(LABELS.values())


def test_labels_of_neighbouring_rows_have_room(bench, drawn):
    bench.experiment["methods"]["resnet"]["label"] = "A very long name of a method that takes four lines"
    figures.accuracy(bench.read(), bench.root / "a")
    fig = drawn[0]
    fig.draw_without_rendering()
    boxes = [tick.get_window_extent() for tick in fig.axes[0].get_yticklabels()]
    assert not any(above.overlaps(below) for above, below in itertools.pairwise(boxes))


def test_heatmaps_share_one_symmetric_scale_with_white_at_zero(bench, drawn):
    figures.heatmaps(bench.read(), bench.root / "h")
    columns = 2 + len(LABELS)
    panels = np.array(drawn[0].axes[:-1]).reshape(-1, columns)
    assert len(panels) == 4
    maps = [panel.images[0] for panel in panels[:, 2:].flat]
    limits = {image.get_clim() for image in maps}
    assert len(limits) == 1
    low, high = limits.pop()
    assert low == -high
    assert maps[0].cmap(maps[0].norm(0.0)) == (1.0, 1.0, 1.0, 1.0)
    assert abs(maps[0].get_array()).sum() == pytest.approx(100, rel=1e-5)
    stored = stored_heatmaps(biased=True)
    expected = 100 - 100 * abs(stored["iid_relevance"][0] * stored["iid_masks"][0]).sum() / (
        abs(stored["iid_relevance"][0]).sum()
    )
    assert panels[0, 2].get_xlabel() == f"{expected:.0f} %"
    assert panels[0, 3].get_xlabel() == "0 %"


def test_the_idea_shows_where_two_rows_look_and_their_mean_scores(bench, drawn):
    found = bench.read()
    figures.idea(found, bench.root / "i")
    image, first, last, scores = drawn[0].axes[:4]
    assert len(image.images[0].get_array()) == len(first.images[0].get_array())
    assert float(first.get_xlabel().split()[0]) > 0
    assert last.get_xlabel() == "0 % outside the outline"
    heights = [bar.get_height() for bar in scores.patches]
    expected = [
        100 * found.frame.query("method == @row and set == @name")["accuracy"].mean()
        for row in (found.gallery[0], found.gallery[-1])
        for name in SETS
    ]
    assert heights == pytest.approx(expected)


def test_heatmaps_show_images_of_different_classes(bench, drawn):
    figures.heatmaps(bench.read(), bench.root / "h")
    stored = stored_heatmaps(biased=True)["iid_images"]
    shown = [panel.images[0].get_array() for panel in drawn[0].axes[: 4 * 6 : 6]]
    for image, index in zip(shown, (0, 2, 3, 4), strict=True):
        np.testing.assert_allclose(image, stored[index, 0], atol=0.002)


def test_relevance_of_photographs_lies_over_them_in_pale_grey(bench, drawn):
    for row in LABELS:
        stored = stored_heatmaps(biased=row == "resnet")
        colours = np.concatenate([stored["iid_images"] * share for share in (1, 0.5, 0)], axis=1)
        channels = {"iid_images": colours, "iid_relevance": np.repeat(stored["iid_relevance"] / 3, 3, axis=1)}
        np.savez(bench.run(row, 0) / "heatmaps.npz", **{**stored, **channels})
    figures.heatmaps(bench.read(), bench.root / "h")
    panels = np.array(drawn[0].axes[:-1]).reshape(-1, 2 + len(LABELS))
    for example, row in zip((0, 2, 3, 4), panels, strict=True):
        image, grey = stored_heatmaps(biased=True)["iid_images"][example, 0], row[2].images[0].get_array()
        np.testing.assert_allclose(row[0].images[0].get_array()[:, :, 1], image / 2, atol=0.004)
        # By hand: half of the first channel, of which 0.3 of the contrast is left.
        np.testing.assert_allclose(grey, 0.7 + 0.3 * image / 2, atol=0.004)
        for panel in row[2:]:
            relevance = panel.images[1]
            shown = np.minimum(abs(relevance.get_array()) / relevance.get_clim()[1], 1)
            np.testing.assert_allclose(relevance.get_alpha() ** 2, shown, atol=1e-6)
            assert len(panel.collections) == 1, "the outline of the mask"


def test_figures_have_column_width_embedded_fonts_and_no_date(bench):
    prefix = bench.root / "figures" / "mnist_accuracy"
    figures.accuracy(bench.read(), prefix)
    pdf = prefix.with_suffix(".pdf").read_bytes()
    width = float(re.search(rb"/MediaBox \[ 0 0 ([0-9.]+)", pdf).group(1))
    assert width == pytest.approx(88 / 25.4 * 72, abs=0.01)
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf
    assert b"Date" not in pdf
    picture = matplotlib.image.imread(prefix.with_suffix(".png"))
    assert picture.shape[1] == round(88 / 25.4 * 300)
    assert sorted(path.name for path in prefix.parent.iterdir()) == [
        "mnist_accuracy.pdf",
        "mnist_accuracy.png",
    ]
    again = bench.root / "again" / "mnist_accuracy"
    figures.accuracy(bench.read(), again)
    for kind in (".pdf", ".png"):
        assert again.with_suffix(kind).read_bytes() == prefix.with_suffix(kind).read_bytes()


def _looks(*rows, **more):
    found = {row: Row(id=row, method=method, label=row, params={}, **more) for row, method in rows}
    return style.row_looks(found)


def test_every_method_has_its_own_look():
    built_in = [(name, name) for name in catalog.read().methods]
    looks = _looks(*built_in)
    assert list(looks) == [name for name, _ in built_in]
    assert len({(look.color, look.marker) for look in looks.values()}) == len(looks)
    named = {name: look for name, look in looks.items() if name == "resnet" or name.endswith("isnet")}
    others = [look for name, look in looks.items() if name not in named]
    assert len(named) == len({look.color for look in named.values()}) == 5
    assert not {look.color for look in named.values()} & {look.color for look in others}
    assert not {look.marker for look in named.values()} & {look.marker for look in others}


def test_a_new_method_has_a_look_by_its_name_alone_and_changes_no_other():
    before = _looks(("resnet", "resnet"), ("rrr", "rrr"), ("zz_new", "zz_new"))
    after = _looks(("aa_new", "aa_new"), ("resnet", "resnet"), ("zz_new", "zz_new"), ("rrr", "rrr"))
    assert {name: after[name] for name in before} == before


def test_the_configuration_may_say_how_a_row_looks():
    look = _looks(("rrr", "rrr"), color="red", marker="x")["rrr"]
    assert (look.color, look.marker) == ("red", "x")


def test_variants_follow_their_method_with_its_colour():
    looks = _looks(("f8", "stochastic_isnet"), ("resnet", "resnet"), ("stochastic_isnet", "stochastic_isnet"))
    assert list(looks) == ["stochastic_isnet", "f8", "resnet"]
    assert looks["f8"].color == looks["stochastic_isnet"].color
    assert looks["f8"].face == "white"
    assert looks["f8"].line != looks["stochastic_isnet"].line


def test_an_empty_gallery_has_no_figure(bench):
    bench.experiment["gallery"] = []
    with pytest.raises(BenchError, match="gallery of experiment mnist is empty"):
        figures.heatmaps(bench.read(), bench.root / "h")
    del bench.experiment["gallery"]
    with pytest.raises(BenchError, match="has no heatmaps of resnet"):
        figures.heatmaps(runs.read(bench.config, "mnist", bench.root), bench.root / "h")


@pytest.mark.parametrize(
    ("labels", "places"),
    [([2, 0, 1, 0, 3, 4, 4], [0, 1, 2, 4]), ([1, 1, 0, 0, 1], [0, 1, 2, 3]), ([7, 7], [0, 1])],
)
def test_each_class_comes_before_a_second_of_any(labels, places):
    assert figures.chosen(np.array(labels)).tolist() == places


def _texts(panel):
    return sorted(text.get_text() for text in panel.texts)


def test_summary_has_the_score_and_the_time_with_intervals(bench):
    table = figures.costs(bench.read())
    assert list(table.index) == ["resnet", "original_isnet", "stochastic_isnet", "stochastic_isnet_f8"]
    frame = bench.read().table("predictions.parquet")
    expected = statistics.estimates(frame).set_index(["set", "method"]).loc["ood"]
    np.testing.assert_allclose(
        table[["score", "score_low", "score_high"]], 100 * expected.loc[table.index, ["value", "low", "high"]]
    )
    # Every row took 20, 22 and 24 s.
    logs = np.log([20, 22, 24])
    half = stats.t.ppf(0.975, 2) * logs.std(ddof=1) / np.sqrt(3)
    expected = np.exp([logs.mean(), logs.mean() - half, logs.mean() + half])
    np.testing.assert_allclose(table[["seconds", "seconds_low", "seconds_high"]], np.tile(expected, (4, 1)))


def test_figure_shows_every_row_with_intervals_in_both_directions(bench, drawn):
    for place, row in enumerate(LABELS):
        for seed in range(3):
            bench.change(row, seed, "run.json", train_seconds=20.0 * 2**place + seed)
    table = figures.costs(bench.read())
    figures.tradeoff(bench.read(), bench.root / "t")
    (panel,) = drawn[0].axes
    assert panel.get_xscale() == "log"
    assert panel.get_ylabel() == "Accuracy, ood (%)"
    assert _texts(panel) == sorted(LABELS.values())
    points = {to_hex(bar[0].get_color()): bar[0].get_xydata()[0] for bar in panel.containers}
    np.testing.assert_allclose(points["#000000"], table.loc["resnet", ["seconds", "score"]])
    _, _, (lying, upright) = panel.containers[0]
    np.testing.assert_allclose(lying.get_segments()[0][:, 0], table.loc["resnet", ["seconds_low", "seconds_high"]])
    np.testing.assert_allclose(upright.get_segments()[0][:, 1], table.loc["resnet", ["score_low", "score_high"]])
    title = " ".join(drawn[0].get_suptitle().split())
    assert title.startswith("MNIST with a synthetic background bias Data: MNIST 3 seeds; bars: 95 % intervals")


def test_many_rows_close_to_the_best_one_are_enlarged(bench, drawn, monkeypatch):
    monkeypatch.setattr(figures, "_CROWD", 3)
    figures.tradeoff(bench.read(), bench.root / "t")
    whole, part = drawn[0].axes
    assert _texts(whole) == [LABELS["resnet"]]
    assert len(whole.containers) == 4
    assert _texts(part) == sorted(label for row, label in LABELS.items() if row != "resnet")
    assert len(part.containers) == 3


def test_one_seed_has_no_interval_of_the_time_and_says_so(bench, drawn):
    bench.raw["seeds"] = [1]
    figures.tradeoff(bench.read(), bench.root / "t")
    _, _, bars = drawn[0].axes[0].containers[0]
    assert len(bars) == 1
    assert "1 seed; bars: 95 % intervals over test images" in drawn[0].get_suptitle()


def test_labels_cover_neither_each_other_nor_markers_and_are_the_same_every_time(bench, drawn):
    # All rows but the first are close to each other.
    for _ in range(2):
        figures.tradeoff(bench.read(), bench.root / "t")
    (panel,), (again,) = (fig.axes for fig in drawn)
    assert [text.get_position() for text in panel.texts] == [text.get_position() for text in again.texts]
    panel.figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in panel.texts]
    markers = [panel.transData.transform(bar[0].get_xydata()[0]) for bar in panel.containers]
    for place, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[place + 1 :])
        assert not any(box.contains(*marker) for marker in markers)
        assert panel.get_window_extent().contains(*box.min)
        assert panel.get_window_extent().contains(*box.max)
