"""Table and figure of a study, from metrics that the tests write themselves."""

import json
import re

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
import reporting_runs

from isnet_bench import config as configuration
from isnet_bench import variations as settings
from isnet_bench.errors import BenchError
from isnet_bench.reporting import outputs, publishing, style, variation_figures, variations

drawn = reporting_runs.drawn
SETS = ("iid", "ood", "deceiving")
# 97.5 % quantile of Student's t with 2 degrees of freedom, from a printed table, for three seeds 0.01 apart.
HALF = 4.302653 * 0.01 / np.sqrt(3)
GIVEN = {
    "seeds": [0, 1, 2],
    "experiments": {
        "mnist": {
            "data": {"name": "mnist"},
            "backbone": {"name": "resnet_small"},
            "training": {
                "epochs": 1,
                "batch_size": 8,
                "learning_rate": 1e-3,
                "weight_decay": 0,
                "gradient_clip": None,
            },
            "methods": {"stochastic_isnet": None, "resnet": None},
        }
    },
    "studies": {
        "strength": {
            "title": "How strong",
            "experiment": "mnist",
            "rows": ["stochastic_isnet", "resnet"],
            "vary": [{"setting": "data.bias.strength", "label": "Strength", "values": [0.5, 0, 1]}],
        },
        "fraction": {
            "title": "How many & where",
            "experiment": "mnist",
            "rows": ["stochastic_isnet"],
            "vary": [
                {
                    "setting": "params.heatmap_fraction",
                    "label": "Fraction of all",
                    "values": {"1/8": 0.125, "1": 1},
                    "scale": "log",
                },
                {"setting": "data.bias.pattern", "label": "Mark", "values": ["border_pixel", "corner_patch"]},
            ],
            "seconds": True,
        },
        "patterns": {
            "experiment": "mnist",
            "rows": ["stochastic_isnet", "resnet"],
            "vary": [{"setting": "data.bias.pattern", "values": ["border_pixel", "corner_patch"]}],
        },
    },
}


@pytest.fixture
def config():
    return configuration.check(GIVEN, "test")


@pytest.fixture
def results(config, tmp_path):
    """Runs of all studies; the score of a set is `mean_of` its run, and seeds are 0.01 apart."""
    for study in settings.names(config):
        for cell in settings.cells(config, study):
            for seed in settings.seeds(config, study):
                _write_run(tmp_path / cell.experiment / cell.row / f"seed{seed}", cell, seed)
    return tmp_path


def mean_of(cell, name):
    """Something that differs for every row, value and test set."""
    strength = cell.values[0].given if isinstance(cell.values[0].given, (int, float)) else 0.3
    return 0.9 - 0.1 * SETS.index(name) - 0.2 * strength - (0.3 if cell.source == "resnet" else 0)


def _write_run(folder, cell, seed):
    folder.mkdir(parents=True)
    sets = {}
    for name in SETS:
        score = mean_of(cell, name) + 0.01 * (seed - 1)
        scores = {"accuracy": score, "macro_f1": score / 2, "balanced_accuracy": score / 4, "auc": None}
        rest = {"per_class": [], "confusion": [], "background_area": 0.6, "images": 100}
        sets[name] = {**scores, **rest, "background_relevance": None if cell.source == "resnet" else 0.25}
    metrics = {
        "data": "MNIST",
        "stand_in": False,
        "method": cell.row,
        "seed": seed,
        "explainer": "LRP",
        "sets": sets,
        "prediction_changes": None,
        "train_seconds": 40.0 + 10 * seed,
    }
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "run.json").write_text(json.dumps({"data": {"classes": list("abcd")}}))
    (folder / "history.csv").write_text("epoch\n1\n")


def _table(config, results, study):
    variations.write(config, study, results, results / "tables" / study)
    return pd.read_csv(results / "tables" / f"{study}.csv")


def test_csv_has_every_value_row_and_set_with_mean_deviation_and_interval(config, results):
    table = _table(config, results, "strength")
    keys = ["data.bias.strength", "method", "set"]
    # The configuration's order of values; the plain network before the ISNets.
    assert table[keys].to_numpy().tolist() == [
        [strength, row, name] for strength in (0.5, 0, 1) for row in ("resnet", "stochastic_isnet") for name in SETS
    ]
    row = table.set_index(keys).loc[(0.5, "stochastic_isnet", "ood")]
    assert row["mean"] == pytest.approx(0.7)
    assert row["std"] == pytest.approx(0.01)
    assert (row["low"], row["high"]) == pytest.approx((0.7 - HALF, 0.7 + HALF), abs=1e-5)
    assert (row["seeds"], row["metric"], row["label"]) == (3, "accuracy", "Stochastic ISNet")
    assert (row["train_seconds_mean"], row["train_seconds_std"]) == (50, 10)
    assert row["train_seconds_high"] == pytest.approx(50 + 1000 * HALF, abs=1e-3)
    assert row["background_relevance_mean"] == 0.25
    assert np.isnan(table.set_index(keys).loc[(0.5, "resnet", "ood"), "background_relevance_mean"])
    assert (row["data"], row["stand_in"]) == ("MNIST", False)


def test_two_settings_have_a_column_each(config, results):
    table = _table(config, results, "fraction")
    assert len(table) == 2 * 2 * len(SETS)
    assert table["params.heatmap_fraction"].unique().tolist() == [0.125, 1]
    assert table["data.bias.pattern"].unique().tolist() == ["border_pixel", "corner_patch"]


def test_tables_for_people_are_in_percent(config, results):
    _table(config, results, "fraction")
    text = (results / "tables" / "fraction.md").read_text()
    assert text.startswith(
        "How many & where. Data: MNIST. Accuracy on iid, ood, deceiving test images, 3 seeds (mean ±"
    )
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    assert cells[0][:4] == ["Fraction of all", "Mark", "Method", "iid (%)"]
    first = ["1/8", "border_pixel", "Stochastic ISNet", "87.5 ± 1.0", "77.5 ± 1.0", "67.5 ± 1.0"]
    assert cells[2] == [*first, "25.0 ± 0.0", "50.0 ± 10.0"]
    tex = (results / "tables" / "fraction.tex").read_text()
    assert r"1/8 & border\_pixel & Stochastic ISNet & 87.5 $\pm$ 1.0 &" in tex
    assert r"How many \& where" in tex
    assert r"\label{tab:fraction}" in tex
    assert "{lllrrrrr}" in tex
    page = (results / "tables" / "fraction.html").read_text()
    assert "<title>How many &amp; where</title>" in page
    assert '<td class="text">1/8</td><td class="text">border_pixel</td>' in page
    assert page.count("<tr>") == 1 + 4


def test_the_score_is_that_of_the_experiment(config, results):
    for name in {cell.experiment for cell in settings.cells(config, "strength")}:
        config["experiments"][name]["score"] = "macro_f1"
    table = _table(config, results, "strength")
    assert table["metric"].unique().tolist() == ["macro_f1"]
    assert table["mean"][0] == pytest.approx(0.25)


def test_a_single_seed_has_the_interval_over_its_images(config, results, drawn):
    config["studies"]["strength"]["seeds"] = [1]
    for path in results.glob("strength_*/*/seed1/metrics.json"):
        metrics = json.loads(path.read_text())
        for name, values in metrics["sets"].items():
            values["accuracy_interval"] = [
                values["accuracy"] - 0.03,
                values["accuracy"] + 0.01 * (1 + SETS.index(name)),
            ]
        path.write_text(json.dumps(metrics))
    table = _table(config, results, "strength")
    np.testing.assert_allclose(table["mean"] - table["low"], 0.03, atol=1e-6)
    np.testing.assert_allclose(table["high"] - table["mean"], 0.01 * (1 + table["set"].map(SETS.index)), atol=1e-6)
    assert table[["std", "train_seconds_low", "train_seconds_high"]].isna().all(axis=None)
    variation_figures.draw(config, "strength", results, results / "x")
    assert "1 seed; bars: 95 % interval over test images; dotted" in drawn[0].get_suptitle()


def test_several_seeds_have_the_interval_over_seeds_whatever_their_images_say(config, results):
    before = _table(config, results, "strength")
    for path in results.glob("strength_*/*/seed*/metrics.json"):
        path.write_text(path.read_text().replace('"accuracy":', '"accuracy_interval": [0.0, 1.0], "accuracy":'))
    pd.testing.assert_frame_equal(before, _table(config, results, "strength"))


def test_a_single_seed_without_intervals_has_no_spread(config, results, drawn):
    config["studies"]["strength"]["seeds"] = [1]
    table = _table(config, results, "strength")
    assert table[["std", "low", "high", "train_seconds_std"]].isna().all(axis=None)
    assert "±" not in (results / "tables" / "strength.md").read_text()
    variation_figures.draw(config, "strength", results, results / "x")
    assert "1 seed; dotted" in drawn[0].get_suptitle()


def test_a_missing_run_says_how_to_make_it(config, results):
    (results / "strength_0_5" / "resnet" / "seed1" / "metrics.json").unlink()
    with pytest.raises(BenchError, match=r"seed1/metrics.json is missing.* --experiment strength_0_5 --method resnet"):
        _table(config, results, "strength")


def test_runs_on_different_data_are_not_compared(config, results):
    for path in (results / "strength_0").rglob("metrics.json"):
        path.write_text(path.read_text().replace('"MNIST"', '"digits"'))
    with pytest.raises(BenchError, match=r"runs of strength_0 were made on digits .* study strength cannot compare"):
        _table(config, results, "strength")


def test_stand_in_data_are_named(config, results, drawn):
    for path in results.rglob("metrics.json"):
        path.write_text(path.read_text().replace('"stand_in": false', '"stand_in": true'))
    _table(config, results, "strength")
    assert (results / "tables" / "strength.md").read_text().startswith("STAND-IN DATA: How strong.")
    variation_figures.draw(config, "strength", results, results / "x")
    assert drawn[0].get_suptitle().startswith("STAND-IN DATA: How strong\nData: MNIST")


def test_numbers_are_on_a_line_with_intervals(config, results, drawn):
    variation_figures.draw(config, "strength", results, results / "x")
    panels = drawn[0].axes
    assert [panel.get_title() for panel in panels] == list(SETS)
    plain, isnet = panels[1].containers
    assert plain.get_label() == "Standard classifier"
    line, _, (bars,) = isnet.lines
    assert line.get_linestyle() == "-"
    assert line.get_xdata().tolist() == [0, 0.5, 1]
    np.testing.assert_allclose(line.get_ydata(), [80, 70, 60])
    np.testing.assert_allclose(
        sorted(np.array(bars.get_segments())[:, :, 1].tolist()),
        [[value - 100 * HALF, value + 100 * HALF] for value in (60, 70, 80)],
        rtol=1e-5,
    )
    # The lowest end of an interval is just below 20 %, so the axis begins at 0, with room for markers.
    assert {panel.get_ylim()[0] for panel in panels} == {-3}
    assert panels[1].get_xlabel() == "Strength"
    assert 25 in panels[0].lines[-1].get_ydata(), "four classes: one over their number"


def test_other_values_stand_beside_each_other_without_lines(config, results, drawn):
    variation_figures.draw(config, "patterns", results, results / "x")
    panel = drawn[0].axes[0]
    plain, isnet = (container.lines[0] for container in panel.containers)
    assert plain.get_linestyle() == isnet.get_linestyle() == "None"
    assert (plain.get_xdata() < [0, 1]).all()
    assert (isnet.get_xdata() > [0, 1]).all()
    assert [label.get_text() for label in panel.get_xticklabels()] == ["border_pixel", "corner_patch"]


def test_a_second_setting_has_rows_of_panels_and_seconds_a_column(config, results, drawn):
    variation_figures.draw(config, "fraction", results, results / "x")
    panels = np.array(drawn[0].axes).reshape(2, 4)
    assert [panel.get_title() for panel in panels[0]] == [*SETS, "training"]
    assert [line[0].get_ylabel() for line in panels] == [
        f"Mark: {mark}\nAccuracy (%)" for mark in ("border_pixel", "corner_patch")
    ]
    assert {panel.get_xscale() for panel in panels.flat} == {"log"}
    assert [label.get_text() for label in panels[0, 0].get_xticklabels()] == ["1/8", "1"]
    seconds = panels[0, 3]
    np.testing.assert_allclose(seconds.containers[0].lines[0].get_ydata(), [50, 50])
    assert seconds.get_ylim() == panels[1, 3].get_ylim()
    assert seconds.get_ylabel() == "Training (s)"


def test_an_even_scale_keeps_the_order_of_the_configuration(results, drawn):
    given = json.loads(json.dumps(GIVEN))
    given["studies"]["strength"]["vary"][0]["scale"] = "even"
    variation_figures.draw(configuration.check(given, "test"), "strength", results, results / "x")
    panel = drawn[0].axes[0]
    assert panel.containers[0].lines[0].get_xdata().tolist() == [0, 1, 2]
    assert [label.get_text() for label in panel.get_xticklabels()] == ["0.5", "0", "1"]


def test_a_figure_is_as_wide_as_a_page_and_the_same_each_time(config, results, monkeypatch):
    monkeypatch.setitem(style.RC, "savefig.dpi", 60)
    for name in ("one", "two"):
        variation_figures.draw(config, "fraction", results, results / name)
    assert (results / "one.pdf").read_bytes() == (results / "two.pdf").read_bytes()
    width = float(re.search(rb"/MediaBox \[ 0 0 ([0-9.]+)", (results / "one.pdf").read_bytes()).group(1))
    assert width == pytest.approx(180 / 25.4 * 72, abs=0.01)
    assert matplotlib.image.imread(results / "one.png").shape[1] == int(180 / 25.4 * 60)


def test_finished_studies_are_published_and_redrawn(config, results, tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(style.RC, "savefig.dpi", 30)
    (results / "fraction_border_pixel" / "stochastic_isnet_1" / "seed0" / "metrics.json").unlink()
    config["experiments"] = {name: one for name, one in config["experiments"].items() if name != "mnist"} | {
        "mnist": GIVEN["experiments"]["mnist"]
    }
    assert outputs.experiments(config) == ["mnist"]
    monkeypatch.setattr(outputs, "experiments", lambda config: [])
    stale = tmp_path / "out" / "strength_1" / "ham" / "seed0" / "metrics.json"
    stale.parent.mkdir(parents=True)
    stale.touch()
    publishing.publish(config, "", results, tmp_path / "out")
    assert "study fraction is left out: 11 of its 12 runs are there" in caplog.text
    out = tmp_path / "out"
    assert {path.name for path in (out / "strength_1" / "resnet" / "seed2").iterdir()} == {
        "metrics.json",
        "run.json",
        "history.csv",
    }
    assert not stale.exists()
    assert {path.name for path in (out / "figures").iterdir()} == {
        f"{study}.{kind}" for study in ("strength", "patterns") for kind in ("pdf", "png")
    }
    assert pd.read_csv(out / "tables" / "strength.csv").equals(_table(config, results, "strength"))
    assert not (out / "fraction_border_pixel").exists()
