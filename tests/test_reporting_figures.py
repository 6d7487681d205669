"""Figures from run folders that the tests write themselves, and their look."""

import itertools
import json
import re

import matplotlib.image
import numpy as np
import pytest
import reporting_runs
from reporting_runs import LABELS, SETS, stored_heatmaps

from isnet_bench.config import MethodEntry
from isnet_bench.errors import BenchError
from isnet_bench.reporting import collect, figures, style

config, results, drawn = reporting_runs.config, reporting_runs.results, reporting_runs.drawn


def test_accuracy_figure_shows_every_seed_mean_and_spread(config, results, drawn):
    figures.accuracy(config, "mnist", results, results / "a")
    panels = drawn[0].axes
    assert [panel.get_title() for panel in panels] == list(SETS)
    assert [tick.get_text().replace("\n", " ") for tick in panels[0].get_yticklabels()] == [
        LABELS[row] for row in ("resnet", "original_isnet", "stochastic_isnet", "stochastic_isnet_f8")
    ]
    seeds = [line.get_xdata() for line in panels[1].lines if line.get_marker() == "."]
    np.testing.assert_allclose(seeds[0], [33.8, 34.8, 35.8])
    assert len(seeds) == len(LABELS)
    _, _, (whisker,) = panels[1].containers[0]
    np.testing.assert_allclose(whisker.get_segments()[0][:, 0], [33.8, 35.8])
    assert "34.8" in [text.get_text() for text in panels[1].texts]


def test_accuracy_figure_of_one_seed_shows_intervals_over_test_images(config, results, drawn):
    config["seeds"] = [0]
    path = results / "mnist" / "resnet" / "seed0" / "metrics.json"
    metrics = json.loads(path.read_text(encoding="utf-8"))
    metrics["sets"]["ood"]["accuracy_interval"] = [0.3, 0.41]
    path.write_text(json.dumps(metrics), encoding="utf-8")
    figures.accuracy(config, "mnist", results, results / "a")
    panel = drawn[0].axes[1]
    _, _, (whisker,) = panel.containers[0]
    np.testing.assert_allclose(whisker.get_segments()[0][:, 0], [30, 41])
    assert not [line for line in panel.lines if line.get_marker() == "."]
    assert "95 % over test images" in " ".join(drawn[0].get_suptitle().split())


def test_more_rows_than_a_column_has_room_for_take_a_page(config, results, drawn, monkeypatch):
    figures.accuracy(config, "mnist", results, results / "a")
    monkeypatch.setattr(figures, "_COLUMN_ROWS", 3)
    figures.accuracy(config, "mnist", results, results / "a")
    sizes = [25.4 * fig.get_figwidth() for fig in drawn]
    np.testing.assert_allclose(sizes, [style.COLUMN_MM, style.PAGE_MM])
    labels = [[tick.get_text() for tick in fig.axes[0].get_yticklabels()] for fig in drawn]
    assert max(label.count("\n") for label in labels[0]) == 1
    assert labels[1] == [LABELS[row] for row in ("resnet", "original_isnet", "stochastic_isnet", "stochastic_isnet_f8")]


def test_labels_of_neighbouring_rows_have_room(config, results, drawn):
    config["experiments"]["mnist"]["methods"]["resnet"]["label"] = "A very long name of a method that takes four lines"
    figures.accuracy(config, "mnist", results, results / "a")
    fig = drawn[0]
    fig.draw_without_rendering()
    boxes = [tick.get_window_extent() for tick in fig.axes[0].get_yticklabels()]
    assert not any(above.overlaps(below) for above, below in itertools.pairwise(boxes))


def test_heatmaps_share_one_symmetric_scale_with_white_at_zero(config, results, drawn):
    figures.heatmaps(config, "mnist", results, results / "h")
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


def test_heatmaps_show_images_of_different_classes(config, results, drawn):
    figures.heatmaps(config, "mnist", results, results / "h")
    stored = stored_heatmaps(biased=True)["iid_images"]
    shown = [panel.images[0].get_array() for panel in drawn[0].axes[: 4 * 6 : 6]]
    for image, index in zip(shown, (0, 2, 3, 4), strict=True):
        np.testing.assert_array_equal(image, stored[index, 0])


def test_heatmaps_of_different_images_are_refused(config, results):
    path = results / "mnist" / "stochastic_isnet" / "seed0" / "heatmaps.npz"
    stored = stored_heatmaps(biased=False)
    np.savez(path, **{**stored, "iid_images": stored["iid_images"][::-1]})
    with pytest.raises(BenchError, match="stochastic_isnet and resnet stored heatmaps of different images"):
        figures.heatmaps(config, "mnist", results, results / "h")


@pytest.mark.parametrize("content", [None, b"no zip"])
def test_unreadable_heatmaps_are_an_error(config, results, content):
    path = results / "mnist" / "original_isnet" / "seed0" / "heatmaps.npz"
    path.unlink()
    if content:
        path.write_bytes(content)
    with pytest.raises(BenchError, match=r"heatmaps\.npz.*evaluate .*--method original_isnet --seed 0"):
        figures.heatmaps(config, "mnist", results, results / "h")


def test_figures_have_column_width_embedded_fonts_and_no_date(config, results):
    prefix = results / "figures" / "mnist_accuracy"
    figures.accuracy(config, "mnist", results, prefix)
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
    again = results / "again" / "mnist_accuracy"
    figures.accuracy(config, "mnist", results, again)
    for kind in (".pdf", ".png"):
        assert again.with_suffix(kind).read_bytes() == prefix.with_suffix(kind).read_bytes()


def test_every_method_has_its_own_look():
    looks = style.method_looks()
    assert next(iter(looks)) == "resnet"
    assert list(looks)[-1] == "stochastic_isnet"
    assert len({(look.color, look.marker) for look in looks.values()}) == len(looks)
    named = [look for name, look in looks.items() if name == "resnet" or name.endswith("isnet")]
    others = [look for look in looks.values() if look not in named]
    assert len(named) == len({look.color for look in named}) == len({look.marker for look in named}) == 5
    assert not {look.color for look in named} & {look.color for look in others}
    assert not {look.marker for look in named} & {look.marker for look in others}


def test_a_new_method_takes_a_spare_look_and_moves_no_isnet(monkeypatch):
    before = style.method_looks()
    monkeypatch.setattr(style.methods, "names", lambda: [*before, "zz_new"])
    after = style.method_looks()
    assert {name: after[name] for name in before} == before
    assert after["zz_new"] not in before.values()


def test_variants_follow_their_method_with_its_colour():
    rows = {"f8": "stochastic_isnet", "stochastic_isnet": "stochastic_isnet", "resnet": "resnet"}
    looks = style.row_looks([MethodEntry(row, method, row, {}, {}) for row, method in rows.items()])
    assert list(looks) == ["resnet", "stochastic_isnet", "f8"]
    assert looks["f8"].color == looks["stochastic_isnet"].color
    assert looks["f8"].face == "white"
    assert looks["f8"].line != looks["stochastic_isnet"].line


def test_an_empty_gallery_has_no_figure(config, results):
    config["experiments"]["mnist"]["gallery"] = []
    with pytest.raises(BenchError, match="gallery of experiment mnist is empty"):
        figures.heatmaps(config, "mnist", results, results / "h")


def test_the_gallery_is_of_the_set_that_is_named(config, results, monkeypatch):
    read = []
    stored = collect.heatmaps
    monkeypatch.setattr(collect, "heatmaps", lambda *where: read.append(where[-1]) or stored(*where[:-1], "iid"))
    config["experiments"]["mnist"]["gallery_set"] = "ood"
    figures.heatmaps(config, "mnist", results, results / "h")
    assert set(read) == {"ood"}
    config["experiments"]["mnist"]["gallery_set"] = "odd"
    with pytest.raises(BenchError, match=r"experiments\.mnist\.gallery_set: no test set 'odd'; there are: iid, ood"):
        figures.heatmaps(config, "mnist", results, results / "h")


@pytest.mark.parametrize(
    ("labels", "places"),
    [([2, 0, 1, 0, 3, 4, 4], [0, 1, 2, 4]), ([1, 1, 0, 0, 1], [0, 1, 2, 3]), ([7, 7], [0, 1])],
)
def test_each_class_comes_before_a_second_of_any(labels, places):
    assert figures.chosen(np.array(labels)).tolist() == places
