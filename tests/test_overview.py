"""Rows of several experiments and studies under every condition, from run folders that the tests write themselves."""

import numpy as np
import pandas as pd
import pytest
import reporting_runs
from reporting_runs import ACCURACY, SETS

from isnet_bench.io.errors import BenchError
from isnet_bench.layout import Layout
from isnet_bench.reporting import outputs, overview, runs, snapshot, statistics

ROWS = ("resnet", "stochastic_isnet")
SHARES = {"resnet": {0.5: 0.4, 1: 0.1}, "stochastic_isnet": {0.5: 0.9, 1: 0.8}}
bench_of_one = pytest.fixture(name="bench_of_one")(reporting_runs.bench._get_wrapped_function())
drawn = reporting_runs.drawn


@pytest.fixture
def bench(bench_of_one):
    """An experiment of four rows, and a study of two of them at two strengths of the bias."""
    bench = bench_of_one
    vary = [{"setting": "data.bias.strength", "label": "Strength", "values": {"half": 0.5, "full": 1}}]
    bench.raw["studies"] = {"strength": {"experiment": "mnist", "rows": list(ROWS), "vary": vary}}
    bench.raw["overviews"] = {
        "all_of_it": {"title": "At a glance", "of": {"A": "mnist", "B": "strength"}, "seconds": True}
    }
    generator = np.random.default_rng(1)
    for cell in bench.config.cells("strength"):
        share = SHARES[cell.source][cell.values[0].given]
        for seed in range(3):
            sets = {name: reporting_runs._scores(share, 0.1) for name in SETS}
            folder, seconds = bench.run(cell.row, seed, cell.experiment), 10.0 if cell.source == "resnet" else 40.0
            reporting_runs.write_run(folder, cell.row, seed, sets, train_seconds=seconds)
            difficulty = generator.random(reporting_runs.IMAGES)
            tables = [reporting_runs._predictions(name, share, difficulty) for name in SETS]
            pd.concat(tables).to_parquet(folder / "predictions.parquet", index=False)
    for name in ("mnist", "strength"):
        bench.collect(name)
    return bench


def test_every_row_stands_under_every_condition(bench):
    table = overview.read(bench.config, "all_of_it", bench.root).table
    assert list(table["condition"].unique()) == ["A", "B, half", "B, full"]
    cells = table.set_index(["condition", "method"])
    for row, shares in SHARES.items():
        for share, condition in zip(shares.values(), ("B, half", "B, full"), strict=True):
            assert cells.loc[(condition, row), "value"] == pytest.approx(share)
            assert cells.loc[(condition, row), "first_value"] == pytest.approx(share)
    for row, accuracies in ACCURACY.items():
        assert cells.loc[("A", row), "value"] == pytest.approx(accuracies[-1], abs=0.5 / reporting_runs.IMAGES)
    assert cells.loc[("B, full", "stochastic_isnet"), "slowdown"] == pytest.approx(4)
    assert (cells["slowdown"].xs("resnet", level="method") == 1).all()


def test_of_some_rows_differences_are_from_the_best_isnet_of_all(bench):
    bench.raw["overviews"]["all_of_it"]["rows"] = ["resnet"]
    table = overview.read(bench.config, "all_of_it", bench.root).table
    assert set(table["method"]) == {"resnet"}
    assert table.set_index("condition").loc["B, full", "difference"] == pytest.approx(0.1 - 0.8)
    overview.write(overview.Overview("x", "X", False, table), bench.root / "x")
    text = (bench.root / "x.md").read_text()
    assert "Best ISNet: Stochastic ISNet" in text
    assert "Training time" not in text


def test_differences_and_tests_are_those_of_the_predictions(bench):
    table = overview.read(bench.config, "all_of_it", bench.root).table
    predictions = snapshot.read(Layout(bench.root).collected("strength")).tables["predictions.parquet"]
    full = predictions[(predictions["experiment"] == "strength_full") & (predictions["set"] == SETS[-1])]
    (pair,) = statistics.pairwise(full.rename(columns={"row": "method"})).to_dict("records")
    (row,) = table[(table["condition"] == "B, full") & (table["method"] == "resnet")].to_dict("records")
    assert row["reference"] == "stochastic_isnet"
    assert row["difference"] == pytest.approx(0.1 - 0.8)
    assert row["p_holm"] == pytest.approx(pair["p"])
    assert row["p"] < 0.01
    (best,) = table[(table["condition"] == "B, full") & (table["method"] == "stochastic_isnet")].to_dict("records")
    assert pd.isna(best["difference"])


def test_table_and_figure_show_all_of_it(bench, drawn):
    outputs.write_overview(bench.config, "all_of_it", bench.root)
    text = Layout(bench.root).table("all_of_it", "md").read_text()
    assert text.startswith("At a glance. Scores are those of the last test set")
    assert "## B, half" in text
    (fig,) = drawn
    written = [text.get_text() for text in fig.axes[0].texts]
    assert "80.0" in written
    assert "4.0 ×" not in written  # The mean over conditions: the experiment's rows took equally long.
    assert f"{4 ** (2 / 3):.1f} ×" in written
    assert written.count("not run") == 2 * (len(ACCURACY) - len(ROWS))


@pytest.fixture
def counted(bench):
    """An overview of lines: two strengths in panels of one study, and one strength in the panel of another."""
    strength = {"setting": "data.bias.strength", "label": "Strength", "values": [0.5, 1]}
    pattern = {"setting": "data.bias.pattern", "label": "Mark", "values": {"pixel": "border_pixel"}}
    study = {"experiment": "mnist", "rows": list(ROWS), "seeds": [0, 1]}
    bench.raw["studies"] |= {
        "several": {**study, "vary": [pattern, strength]},
        "single": {**study, "rows": list(ROWS[1:]), "vary": [{**strength, "values": [1]}]},
    }
    bench.raw["overviews"] = {"lines": {"of": {"A:": "several", "B": "single"}, "against": "data.bias.strength"}}
    for name in ("several", "single"):
        for cell in bench.config.cells(name):
            for seed in range(2):
                share = SHARES[cell.source][cell.values[-1].given] + 0.02 * seed
                sets = {each: reporting_runs._scores(share, 0.1) for each in SETS}
                reporting_runs.write_run(bench.run(cell.row, seed, cell.experiment), cell.row, seed, sets)
        bench.collect(name)
    return bench


def test_lines_have_a_panel_for_each_combination_of_the_other_values(counted, drawn):
    outputs.write_overview(counted.config, "lines", counted.root)
    (fig,) = drawn
    panels = [panel for panel in fig.axes if panel.axison]
    assert [panel.get_title() for panel in panels] == ["A, pixel", "B"]
    assert [[tick.get_text() for tick in panel.get_xticklabels()] for panel in panels] == [["0.5", "1"], ["1"]]
    assert {panel.get_xscale() for panel in panels} == {"log"}
    assert [text.get_text() for text in fig.legends[0].get_texts()] == [reporting_runs.LABELS[row] for row in ROWS]
    assert "mean of 2 seeds" in fig.get_suptitle()


def test_lines_go_through_the_means_and_every_run_is_a_dot(counted, drawn):
    outputs.write_overview(counted.config, "lines", counted.root)
    for panel, shown in zip(drawn[0].axes, ({**SHARES}, {"stochastic_isnet": {1: 0.8}}), strict=False):
        lines = [line for line in panel.lines if len(line.get_xdata())]
        dots = [line for line in lines if line.get_marker() == "."]
        means = [line for line in lines if line not in dots and line.get_linestyle() != "None"]
        for row, dot, mean in zip(shown, dots, means, strict=True):
            expected = list(shown[row].values())
            np.testing.assert_allclose(mean.get_ydata(), [100 * share + 1 for share in expected])
            assert sorted(dot.get_ydata()) == pytest.approx(sorted(100 * x + y for x in expected for y in (0, 2)))


def test_lines_are_against_what_every_study_varies_by_numbers(counted):
    counted.raw["overviews"]["lines"]["of"]["C"] = "mnist"
    with pytest.raises(BenchError, match=r"overviews\.lines\.against: mnist does not vary data\.bias\.strength"):
        assert counted.config
    counted.raw["overviews"]["lines"] = {"of": {"A": "several"}, "against": "data.bias.pattern"}
    with pytest.raises(BenchError, match=r"several does not vary data\.bias\.pattern by numbers"):
        assert counted.config


def test_an_overview_is_of_what_there_is(bench):
    bench.raw["overviews"]["all_of_it"]["of"]["C"] = "strenght"
    with pytest.raises(BenchError, match=r"overviews\.all_of_it\.of\.C: .*'strenght'.*strength"):
        assert bench.config
    bench.raw["overviews"] = {"mine": {"of": {"A": "strength"}, "rows": ["resnett"]}}
    with pytest.raises(BenchError, match=r"overviews\.mine\.rows: .*'resnett'.*resnet"):
        assert bench.config
    bench.raw["overviews"] = {"mnist": {"of": {"A": "strength"}}}
    with pytest.raises(BenchError, match=r"overviews\.mnist: an experiment or a study has that name"):
        assert bench.config


def test_runs_that_were_collected_without_predictions_are_refused(bench):
    # As older snapshots are.
    for name in ("predictions.parquet", "digests.json"):
        (Layout(bench.root).collected("strength") / name).unlink()
    with pytest.raises(BenchError, match="has no predictions of strength; collect its finished runs again"):
        overview.read(bench.config, "all_of_it", bench.root)
    assert runs.read(bench.config, "strength", bench.root).sets == SETS
