"""Table and figure of a study, and the choice among candidates, from run folders that the tests write themselves."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import reporting_runs
import yaml
from reporting_runs import EXPERIMENT, SETS, TRAINING, Bench, write_run

from isnet_bench import config as configuration
from isnet_bench.io.errors import BenchError
from isnet_bench.layout import Layout
from isnet_bench.reporting import outputs, runs, snapshot, studies, style

drawn = reporting_runs.drawn
# 97.5 % quantile of Student's t with 2 degrees of freedom, from a printed table, for three seeds 0.01 apart.
HALF = 4.302653 * 0.01 / np.sqrt(3)
PATTERNS = {"setting": "data.bias.pattern", "values": ["border_pixel", "corner_patch"]}
STUDIES = {
    "strength": {
        "title": "How strong",
        "rows": ["resnet", "stochastic_isnet"],
        "vary": [{"setting": "data.bias.strength", "label": "Strength", "values": [0.5, 0, 1]}],
    },
    "fraction": {
        "title": "How many & where",
        "rows": ["stochastic_isnet"],
        "vary": [
            {
                "setting": "params.heatmap_fraction",
                "label": "Fraction of all",
                "values": {"1/8": 0.125, "1": 1.0},
                "scale": "log",
            },
            {**PATTERNS, "label": "Mark"},
        ],
        "seconds": True,
    },
    "patterns": {"rows": ["resnet", "stochastic_isnet"], "vary": [PATTERNS]},
    "choice": {
        "title": "Which?",
        "seeds": [5],
        "candidates": {
            "rrr": [{"params": {"weight": 1000.0}}, {"params": {"weight": 10.0}, "training": {"epochs": 1}}],
            "resnet": [None, {"training": {"epochs": 1}}, {}],
        },
    },
}
ACCURACY = {"rrr": (0.90, 0.97), "resnet": (0.951, 0.96, 0.5)}


@pytest.fixture
def bench(tmp_path):
    """Runs of all studies; the score of a set is `mean_of` its run, and seeds are 0.01 apart."""
    raw = json.loads(json.dumps({name: {**study, "experiment": "mnist"} for name, study in STUDIES.items()}))
    mnist = {**EXPERIMENT, "methods": {"resnet": {}, "stochastic_isnet": {}}}
    bench = Bench({"seeds": [0, 1, 2], "experiments": {"mnist": mnist}, "studies": raw}, tmp_path)
    cfg = bench.config
    for study in STUDIES:
        for cell in cfg.cells(study):
            for seed in cfg.study_seeds(study):
                row = cfg.row(cell.experiment, cell.row)
                sets = {} if study == "choice" else {name: _scores(cell, name, seed) for name in SETS}
                folder = bench.run(cell.row, seed, cell.experiment)
                write_run(folder, cell.row, seed, sets, row.params, classes=4, train_seconds=40.0 + 10 * seed)
    for method, accuracies in ACCURACY.items():
        for place, accuracy in enumerate(accuracies, start=1):
            history = bench.run(f"{method}_candidate{place}", 5, "choice_runs") / "history.csv"
            history.write_text(history.read_text().replace(str(0.1 + 0.2), str(accuracy)))
    return bench


def mean_of(cell, name):
    """Something that differs for every row, value and test set."""
    strength = cell.values[0].given if isinstance(cell.values[0].given, (int, float)) else 0.3
    return 0.9 - 0.1 * SETS.index(name) - 0.2 * strength - (0.3 if cell.source == "resnet" else 0)


def _scores(cell, name, seed):
    score = mean_of(cell, name) + 0.01 * (seed - 1)
    scores = {"accuracy": score, "macro_f1": score / 2, "balanced_accuracy": score / 4, "auc": None}
    rest = {"per_class": [], "confusion": [], "background_area": 0.6, "images": 100}
    return {**scores, **rest, "background_relevance": None if cell.source == "resnet" else 0.25}


def _edit(bench, change, pattern="strength_*/*/seed*/metrics.json"):
    for path in bench.root.glob(pattern):
        path.write_text(json.dumps(change(json.loads(path.read_text()))))


def _table(bench, study):
    studies.write(bench.read(study), bench.root / "tables" / study)
    return pd.read_csv(bench.root / "tables" / f"{study}.csv")


def _draw(bench, study):
    studies.draw(bench.read(study), bench.root / "x", bench.config.study(study).seconds)


def test_csv_has_every_value_row_and_set_with_mean_deviation_and_interval(bench):
    table = _table(bench, "strength")
    keys = ["data.bias.strength", "method", "set"]
    # The configuration's order.
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


def test_tables_for_people_are_in_percent_with_a_column_for_each_setting(bench):
    table = _table(bench, "fraction")
    assert len(table) == 2 * 2 * len(SETS)
    assert table["params.heatmap_fraction"].unique().tolist() == [0.125, 1]
    assert table["data.bias.pattern"].unique().tolist() == ["border_pixel", "corner_patch"]
    text = (bench.root / "tables" / "fraction.md").read_text()
    assert text.startswith(
        "How many & where. Data: MNIST. Accuracy on iid, ood, deceiving test images, 3 seeds (mean ±"
    )
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    assert cells[0][:4] == ["Fraction of all", "Mark", "Method", "iid (%)"]
    first = ["1/8", "border_pixel", "Stochastic ISNet", "87.5 ± 1.0", "77.5 ± 1.0", "67.5 ± 1.0"]
    assert cells[2] == [*first, "25.0 ± 0.0", "50.0 ± 10.0"]
    tex = (bench.root / "tables" / "fraction.tex").read_text()
    assert r"1/8 & border\_pixel & Stochastic ISNet & 87.5 $\pm$ 1.0 &" in tex
    assert r"How many \& where" in tex
    assert r"\label{tab:fraction}" in tex
    assert "{lllrrrrr}" in tex
    page = (bench.root / "tables" / "fraction.html").read_text()
    assert "<title>How many &amp; where</title>" in page
    assert page.count("<tr>") == 1 + 4


def test_the_score_is_that_of_the_experiment(bench):
    bench.experiment["score"] = "macro_f1"
    table = _table(bench, "strength")
    assert table["metric"].unique().tolist() == ["macro_f1"]
    assert table["mean"][0] == pytest.approx(0.25)


def test_a_single_seed_has_the_interval_over_its_images_several_that_over_seeds(bench, drawn):
    before = _table(bench, "strength")

    def put(metrics):
        for place, values in enumerate(metrics["sets"].values()):
            values["accuracy_interval"] = [values["accuracy"] - 0.03, values["accuracy"] + 0.01 * (1 + place)]
        return metrics

    _edit(bench, put)
    pd.testing.assert_frame_equal(before, _table(bench, "strength"))
    bench.raw["studies"]["strength"]["seeds"] = [1]
    table = _table(bench, "strength")
    np.testing.assert_allclose(table["mean"] - table["low"], 0.03, atol=1e-6)
    np.testing.assert_allclose(table["high"] - table["mean"], 0.01 * (1 + table["set"].map(SETS.index)), atol=1e-6)
    assert table[["std", "train_seconds_low", "train_seconds_high"]].isna().all(axis=None)
    _draw(bench, "strength")
    assert "1 seed; bars: 95 % interval over test images; dotted" in drawn[0].get_suptitle()


def test_a_single_seed_without_intervals_has_no_spread(bench, drawn):
    bench.raw["studies"]["strength"]["seeds"] = [1]
    table = _table(bench, "strength")
    assert table[["std", "low", "high", "train_seconds_std"]].isna().all(axis=None)
    assert "±" not in (bench.root / "tables" / "strength.md").read_text()
    _draw(bench, "strength")
    assert "1 seed; dotted" in drawn[0].get_suptitle()


def test_a_missing_run_says_how_to_make_it_and_other_data_are_not_compared(bench):
    path = bench.run("resnet", 1, "strength_0") / "run.json"
    record = path.read_text()
    path.write_text(record.replace('"MNIST"', '"digits"'))
    with pytest.raises(BenchError, match=r"strength_0/resnet/seed1 has the data 'digits', but "):
        bench.collect("strength")
    path.write_text(record)
    (bench.run("resnet", 1, "strength_0_5") / "metrics.json").unlink()
    with pytest.raises(BenchError, match=r"seed1/metrics.json is missing.* --experiment strength_0_5 --row resnet"):
        bench.collect("strength")


def test_stand_in_data_are_named(bench, drawn):
    _edit(bench, lambda run: {**run, "data": {**run["data"], "stand_in": True}}, "strength_*/*/seed*/run.json")
    _table(bench, "strength")
    assert (bench.root / "tables" / "strength.md").read_text().startswith("STAND-IN DATA: How strong.")
    _draw(bench, "strength")
    assert drawn[0].get_suptitle().startswith("STAND-IN DATA: How strong\nData: MNIST")


def test_numbers_are_on_a_line_with_intervals(bench, drawn):
    _draw(bench, "strength")
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


def test_other_values_stand_beside_each_other_without_lines(bench, drawn):
    _draw(bench, "patterns")
    panel = drawn[0].axes[0]
    plain, isnet = (container.lines[0] for container in panel.containers)
    assert plain.get_linestyle() == isnet.get_linestyle() == "None"
    assert (plain.get_xdata() < [0, 1]).all()
    assert (isnet.get_xdata() > [0, 1]).all()
    assert [label.get_text() for label in panel.get_xticklabels()] == ["border_pixel", "corner_patch"]


def test_a_second_setting_has_rows_of_panels_and_seconds_a_column(bench, drawn):
    _draw(bench, "fraction")
    panels = np.array(drawn[0].axes).reshape(2, 4)
    assert 25.4 * drawn[0].get_figwidth() == pytest.approx(style.PAGE_MM)
    assert [panel.get_title() for panel in panels[0]] == [*SETS, "training"]
    assert [line[0].get_ylabel() for line in panels] == [
        f"Mark: {mark}\nAccuracy (%)" for mark in ("border_pixel", "corner_patch")
    ]
    assert {panel.get_xscale() for panel in panels.flat} == {"log"}
    assert [label.get_text() for label in panels[0, 0].get_xticklabels()] == ["1/8", "1"]
    seconds = panels[0, 3]
    np.testing.assert_allclose(seconds.containers[0].lines[0].get_ydata(), [50, 50])
    assert seconds.get_ylim() == panels[1, 3].get_ylim()
    assert seconds.get_ylabel() == "Training time (s)"


def test_an_even_scale_keeps_the_order_of_the_configuration(bench, drawn):
    bench.raw["studies"]["strength"]["vary"][0]["scale"] = "even"
    _draw(bench, "strength")
    panel = drawn[0].axes[0]
    assert panel.containers[0].lines[0].get_xdata().tolist() == [0, 1, 2]
    assert [label.get_text() for label in panel.get_xticklabels()] == ["0.5", "0", "1"]


def test_collected_studies_are_in_a_snapshot_of_several(bench):
    for study in ("strength", "choice"):
        bench.collect(study)
    assert outputs.collected_studies(bench.config, bench.root) == ["strength", "choice"]
    before = _table(bench, "strength")
    parts = [snapshot.read(Layout(bench.root).collected(name)) for name in ("choice", "strength")]
    snapshot.write(snapshot.concatenate(parts), bench.root)
    assert outputs.collected_studies(bench.config, bench.root) == ["strength", "choice"]
    outputs.write_study(bench.config, "choice", bench.root)
    studies.write(outputs.runs.read(bench.config, "strength", bench.root), bench.root / "again")
    assert pd.read_csv(bench.root / "again.csv").equals(before)


@pytest.mark.parametrize(
    ("accuracy", "images", "place"),
    [
        # Standard error of 0.9 with 100 images: 0.03.
        ([0.86, 0.87, 0.90, 0.89], 100, 1),
        ([0.8699, 0.86, 0.90], 100, 2),
        # With a hundred times as many it is 0.003.
        ([0.86, 0.87, 0.90, 0.89], 10_000, 2),
        # No error at all: the first of the best.
        ([0.998, 1.0, 1.0], 500, 1),
        ([1.0, 1.0], 500, 0),
        ([0.3], 10, 0),
    ],
)
def test_the_first_candidate_within_one_standard_error_is_chosen(accuracy, images, place):
    assert studies.choose(accuracy, images) == place


def test_the_choice_is_written_as_table_and_as_configuration(bench):
    studies.write_choice(bench.read("choice"), bench.root / "choice")
    table = pd.read_csv(bench.root / "choice.csv")
    # RRR: 0.97 has a standard error of 0.0085, so 0.90 is worse. Plain: 0.96 has one of 0.0098, so 0.951 is not.
    assert table.loc[table["chosen"], ["method", "candidate"]].values.tolist() == [["rrr", 2], ["resnet", 1]]
    assert table["val_accuracy"].tolist() == [*ACCURACY["rrr"], *ACCURACY["resnet"]]
    assert (table["val_loss"] == 1).all()
    chosen = yaml.safe_load((bench.root / "choice.yaml").read_text())
    assert chosen == {"methods": {"rrr": STUDIES["choice"]["candidates"]["rrr"][1], "resnet": {}}}
    text = (bench.root / "choice.md").read_text()
    assert text.startswith("Which?. Data: MNIST. Accuracy on 400 iid validation images at the epoch")
    assert "seed 5." in text
    assert "weight 10.0, epochs 1" in text


def test_the_choice_is_by_the_epoch_that_the_configuration_keeps_now(bench):
    bench.collect("choice")
    bench.experiment["training"] = {**TRAINING, "epoch": "last"}
    table = studies.choices(outputs.runs.read(bench.config, "choice", bench.root))
    assert set(zip(table["val_accuracy"], table["val_loss"], strict=True)) == {(1.0, 8.0)}


def test_what_an_oracle_would_choose_is_shown_beside_it(bench):
    bench.raw["studies"]["choice"]["oracle"] = True
    deceiving = {"rrr": (0.3, 0.2), "resnet": (0.1, 0.4, 0.4)}
    for method, accuracies in deceiving.items():
        for place, accuracy in enumerate(accuracies, start=1):
            folder = bench.run(f"{method}_candidate{place}", 5, "choice_runs")
            sets = {name: reporting_runs._scores(0.9 if name == SETS[0] else accuracy, 0.1) for name in SETS}
            shutil.rmtree(folder)
            write_run(
                folder,
                f"{method}_candidate{place}",
                5,
                sets,
                bench.config.row("choice_runs", folder.parent.name).params,
            )
            history = (folder / "history.csv").read_text()
            (folder / "history.csv").write_text(history.replace(str(0.1 + 0.2), str(ACCURACY[method][place - 1])))
    table = studies.choices(bench.read("choice"))
    assert table["val_accuracy"].tolist() == [*ACCURACY["rrr"], *ACCURACY["resnet"]]
    assert table["test_accuracy"].tolist() == [*deceiving["rrr"], *deceiving["resnet"]]
    assert table["chosen"].tolist() == [False, True, True, False, False]
    assert table["oracle_chosen"].tolist() == [True, False, False, True, False]
    studies.write_choice(bench.read("choice"), bench.root / "choice")
    assert "An oracle, which sees the deceiving test images" in (bench.root / "choice.md").read_text()


# They choose together: docs/methods.md.
SWAPPED = ("tuning_of_swapped_isnet", "tuning_of_swapped_isnet_on_phantom")


def test_the_published_configuration_is_what_tuning_chose():
    published = reporting_runs.ROOT / "results" / "published"
    cfg = configuration.load(published / "config.yaml")
    tables = {
        study: yaml.safe_load(Layout(published).table(study).with_suffix(".yaml").read_text())["methods"]
        for study in outputs.collected_studies(cfg, published)
        if cfg.study(study).select
    }
    leaking = tables.pop("tuning_of_leaking")
    both = [studies.choices(runs.read(cfg, name, published)) for name in SWAPPED]
    best = sum(table["val_accuracy"] for table in both).idxmax()
    swapped = cfg.study(SWAPPED[0]).candidates["stochastic_isnet"][best]
    for name in SWAPPED:
        del tables[name]
    chosen = {method: choice for table in tables.values() for method, choice in table.items()}
    rows = cfg.experiment("mnist").rows
    assert set(chosen) == {row.method for row in rows.values()}
    for row in rows.values():
        if row.params.get("background_swap"):
            assert row.params == swapped.params
            continue
        choice = (leaking if "inactive_slope" in row.params else chosen)[row.method]
        assert choice["training"].items() <= row.training.model_dump().items()
        assert choice.get("params", {}).items() <= row.params.items()
        if row.id == row.method:
            assert row.params == choice.get("params", {})
