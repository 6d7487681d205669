"""Tables from run folders that the tests write themselves."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import reporting_runs
from reporting_runs import LABELS, SETS, change, predictions_path, stored_heatmaps

from isnet_bench.errors import BenchError
from isnet_bench.reporting import collect, figures, tables

config, results, drawn = reporting_runs.config, reporting_runs.results, reporting_runs.drawn


def _table(config, results):
    tables.write(config, "mnist", results, results / "tables" / "mnist")
    return pd.read_csv(results / "tables" / "mnist.csv", index_col="method")


def test_people_see_the_score_of_the_experiment(config, results):
    config["experiments"]["mnist"]["score"] = "macro_f1"
    table = _table(config, results)
    assert table.loc["resnet", "ood_macro_f1_mean"] == pytest.approx(0.348 / 2)
    text = (results / "tables" / "mnist.md").read_text()
    assert "Macro F1 on iid, ood, deceiving test images" in text
    assert "| 17.4 ± 0.5 |" in text
    assert np.isnan(table.loc["resnet", "iid_auc_mean"])


def test_classes_table_has_the_confusion_matrix(config, results):
    _table(config, results)
    classes = pd.read_csv(results / "tables" / "mnist_classes.csv", dtype={"class": str})
    row = classes.set_index(["method", "set", "class"]).loc[("original_isnet", "ood", "9")]
    # Accuracies 0.956, 0.966, 0.976; right images 96, 97, 98.
    assert row["precision"] == pytest.approx(0.966)
    assert row["recall"] == pytest.approx(0.97)
    assert np.isnan(row["specificity"])
    assert (row["support"], row["predicted_9"], row["predicted_0"], row["predicted_1"]) == (100, 97, 3, 0)
    assert len(classes) == 4 * 3 * 10


def test_other_explainers_are_marked(config, results):
    for seed in config["seeds"]:
        change(results, "original_isnet", seed, explainer="Gradient × Input")
    table = _table(config, results)
    assert table.loc["original_isnet", "explainer"] == "Gradient × Input"
    text = (results / "tables" / "mnist.md").read_text()
    assert "| Original ISNet" in text
    assert re.search(r"Original ISNet .* 5\.0 ± 1\.0 † \|", text)
    assert text.count("†") == 2
    assert "† Not by LRP-epsilon with z^B input rule, which does not fit this network, but by Gradient × Input." in text
    assert r"$\dagger$" in (results / "tables" / "mnist.tex").read_text()


def test_csv_has_mean_and_sample_deviation_of_each_method(config, results):
    table = _table(config, results)
    statistics = ("mean", "std")
    scores = ("accuracy", "macro_f1", "balanced_accuracy", "auc")
    assert list(table.columns) == [
        "label", "seeds",
        *(f"{name}_{score}_{key}" for score in scores for name in SETS for key in statistics),
        "background_relevance_mean", "background_relevance_std", "background_area", "explainer",
        "prediction_changes_mean", "prediction_changes_std",
        "train_seconds_mean", "train_seconds_std", "data", "stand_in",
    ]  # fmt: skip
    assert list(table.index) == ["resnet", "original_isnet", "stochastic_isnet", "stochastic_isnet_f8"]
    row = table.loc["stochastic_isnet"]
    assert row["seeds"] == 3
    assert row["deceiving_accuracy_mean"] == pytest.approx(0.967)
    assert row["deceiving_accuracy_std"] == pytest.approx(0.01)
    assert row["background_relevance_mean"] == pytest.approx(0.05)
    assert row["train_seconds_std"] == pytest.approx(2.0)
    assert table.loc["resnet", "iid_accuracy_mean"] == pytest.approx((0.99 + 1 + 1) / 3, abs=1e-6)


def test_markdown_is_in_percent_under_a_title_line(config, results):
    _table(config, results)
    title, _, header, _, *body = (results / "tables" / "mnist.md").read_text(encoding="utf-8").splitlines()
    assert title.startswith("MNIST with a synthetic background bias. Data: MNIST.")
    assert "3 seeds (mean ± sample standard deviation)" in title
    assert "STAND-IN" not in title
    assert [cell.strip() for cell in header.split("|")[2:5]] == ["iid (%)", "ood (%)", "deceiving (%)"]
    assert [cell.strip() for cell in body[0].split("|")[1:6]] == [
        "ResNet (plain)", "**99.7 ± 0.6**", "34.8 ± 1.0", "2.1 ± 1.0", "62.0 ± 0.0",
    ]  # fmt: skip
    assert len(body) == len(LABELS)


def _all_right(results, row, name):
    for seed in range(3):
        path = predictions_path(results, row, seed)
        table = pd.read_parquet(path)
        table.loc[table["set"] == name, "prediction"] = table["label"]
        table.to_parquet(path)


def _cells(results, row):
    lines = (results / "tables" / "mnist.md").read_text(encoding="utf-8").splitlines()
    (found,) = [line for line in lines if line.startswith(f"| {LABELS[row]} ")]
    return [cell.strip() for cell in found.split("|")[1:-1]]


def test_the_best_score_is_bold_only_where_it_differs_from_the_second(config, results):
    _all_right(results, "resnet", "deceiving")
    _table(config, results)
    # On iid images, too, it is right more often than all others; on ood images two ISNets are alike.
    assert _cells(results, "resnet")[1:4] == ["**99.7 ± 0.6**", "34.8 ± 1.0", "**2.1 ± 1.0**"]
    text = (results / "tables" / "mnist.md").read_text(encoding="utf-8")
    assert text.count("**") == 4
    assert "Bold: the highest value, if it differs significantly" in text
    latex = (results / "tables" / "mnist.tex").read_text(encoding="utf-8")
    assert latex.count(r"\textbf{") == 2
    assert r" & \textbf{2.1 $\pm$ 1.0} & " in latex


def test_oracles_are_marked_as_such_and_never_as_best(config, results):
    config["experiments"]["mnist"]["methods"]["resnet"]["method"] = "masked_input"
    _all_right(results, "resnet", "deceiving")
    _table(config, results)
    assert not [cell for cell in _cells(results, "resnet") if "**" in cell]
    assert _cells(results, "resnet")[0] == "ResNet (plain) ‡"
    _all_right(results, "original_isnet", "deceiving")
    _table(config, results)
    # Second to none but the oracle.
    assert _cells(results, "original_isnet")[3] == "**96.5 ± 1.0**"
    assert "‡ An oracle, which sees the true masks of test images" in (results / "tables" / "mnist.md").read_text()
    assert r"ResNet (plain) $\ddagger$ &" in (results / "tables" / "mnist.tex").read_text()


def test_scores_that_are_not_tested_are_never_bold(config, results):
    _all_right(results, "resnet", "deceiving")
    config["experiments"]["mnist"]["score"] = "auc"
    _table(config, results)
    text = (results / "tables" / "mnist.md").read_text()
    assert "**" not in text
    assert "Bold" not in text


def test_latex_uses_booktabs_and_escapes_labels(config, results):
    config["experiments"]["mnist"]["methods"]["resnet"]["label"] = "50 % of A&B_1"
    _table(config, results)
    text = (results / "tables" / "mnist.tex").read_text(encoding="utf-8")
    for rule in ("toprule", "midrule", "bottomrule"):
        assert text.count(f"\\{rule}") == 1
    assert r"50 \% of A\&B\_1 & \textbf{99.7 $\pm$ 0.6} &" in text
    assert r"\caption{MNIST with a synthetic background bias. Data: MNIST." in text
    assert not re.search(r"(?<!\\)[%_]", text.split("\n", 1)[1])


def test_a_single_seed_has_no_spread(config, results):
    config["seeds"] = [1]
    table = _table(config, results)
    assert table["ood_accuracy_std"].isna().all()
    assert table.loc["resnet", "ood_accuracy_mean"] == pytest.approx(0.348)
    assert "±" not in (results / "tables" / "mnist.md").read_text(encoding="utf-8")
    assert "1 seed." in (results / "tables" / "mnist.md").read_text(encoding="utf-8")
    assert r"\pm" not in (results / "tables" / "mnist.tex").read_text(encoding="utf-8")


def test_a_method_with_a_run_without_relevance_has_none(config, results, drawn):
    path = results / "mnist" / "resnet" / "seed0"
    sets = json.loads((path / "metrics.json").read_text())["sets"]
    sets["iid"]["background_relevance"] = None
    change(results, "resnet", 0, sets=sets)
    stored = stored_heatmaps(biased=True)
    np.savez(path / "heatmaps.npz", **{**stored, "iid_relevance": 0 * stored["iid_relevance"]})
    table = _table(config, results)
    assert table["background_relevance_mean"].isna().to_list() == [True, False, False, False]
    body = (results / "tables" / "mnist.md").read_text(encoding="utf-8").splitlines()[4:]
    assert [cell.strip() for cell in body[0].split("|")[4:7]] == ["2.1 ± 1.0", "none", "71.0"]
    figures.heatmaps(config, "mnist", results, results / "h")
    assert [panel.get_xlabel() for panel in drawn[0].axes[2:4]] == ["no map", "0 %"]


def test_stand_in_data_are_named_in_every_title(config, results, drawn):
    title = "scikit-learn 8x8 digits, upsampled (stand-in for MNIST)"
    for row in LABELS:
        for seed in config["seeds"]:
            change(results, row, seed, data=title, stand_in=True)
    table = _table(config, results)
    assert table["stand_in"].all()
    for kind in ("md", "tex"):
        text = (results / "tables" / f"mnist.{kind}").read_text(encoding="utf-8")
        assert "STAND-IN DATA: MNIST" in text
        assert title in text
    figures.accuracy(config, "mnist", results, results / "a")
    figures.heatmaps(config, "mnist", results, results / "h")
    for fig in drawn:
        shown = " ".join(fig.get_suptitle().split())
        assert shown.startswith("STAND-IN DATA: MNIST")
        assert title in shown


def test_test_sets_and_their_order_come_from_the_runs(config, results, drawn):
    config["experiments"]["mnist"]["methods"] = {"resnet": {}}
    first = json.loads((results / "mnist" / "resnet" / "seed0" / "metrics.json").read_text())["sets"]
    for seed in config["seeds"]:
        change(results, "resnet", seed, sets={"near": first["ood"], "far": first["iid"]})
        predicted = pd.read_parquet(predictions_path(results, "resnet", seed)).replace({"ood": "near", "iid": "far"})
        chosen = [predicted[predicted["set"] == name] for name in ("near", "far")]
        pd.concat(chosen).to_parquet(predictions_path(results, "resnet", seed))
    table = _table(config, results)
    assert list(table.columns[2:5]) == ["near_accuracy_mean", "near_accuracy_std", "far_accuracy_mean"]
    figures.accuracy(config, "mnist", results, results / "a")
    assert [panel.get_title() for panel in drawn[0].axes] == ["near", "far"]


def test_a_missing_run_is_an_error_that_says_how_to_make_it(config, results):
    (results / "mnist" / "original_isnet" / "seed2" / "metrics.json").unlink()
    with pytest.raises(BenchError) as caught:
        tables.write(config, "mnist", results, results / "tables" / "mnist")
    message = str(caught.value)
    assert str(results / "mnist" / "original_isnet" / "seed2" / "metrics.json") in message
    assert "python -m isnet_bench evaluate" in message
    assert "--experiment mnist --method original_isnet --seed 2" in message
    assert not (results / "tables").exists()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('{"data"', "", "cannot be read"),
        ('"accuracy": 1.0', '"accuracy": NaN', "not finite"),
        ('"accuracy": 1.0', '"accuracy": 1.7', "1.7"),
        ('"stand_in": false, ', "", "stand_in"),
        ('"seed": 1', '"seed": 0', "belongs to resnet with seed 0"),
    ],
)
def test_a_corrupt_run_is_an_error(config, results, old, new, said):
    path = results / "mnist" / "resnet" / "seed1" / "metrics.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(BenchError, match=re.escape(said)) as caught:
        collect.runs(config, "mnist", results)
    assert str(path) in str(caught.value)
    assert "python -m isnet_bench evaluate" in str(caught.value)


def test_runs_on_different_data_share_no_table(config, results):
    change(results, "stochastic_isnet", 1, data="digits", stand_in=True)
    with pytest.raises(BenchError, match=r"stochastic_isnet.seed1.*'digits'.*'MNIST'"):
        collect.runs(config, "mnist", results)


def test_runs_with_other_test_sets_share_no_table(config, results):
    path = results / "mnist" / "resnet" / "seed0" / "metrics.json"
    change(results, "stochastic_isnet", 1, sets={"iid": json.loads(path.read_text())["sets"]["iid"]})
    with pytest.raises(BenchError, match="test sets iid where the first run has iid, ood, deceiving"):
        collect.runs(config, "mnist", results)
