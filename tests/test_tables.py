"""The tables of an experiment, from run folders that the tests write themselves."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import reporting_runs
from reporting_runs import IMAGES, LABELS, SETS, stored_heatmaps
from sklearn.metrics import f1_score

from isnet_bench.io.errors import BenchError
from isnet_bench.reporting import figures, statistics, tables

bench, drawn = reporting_runs.bench, reporting_runs.drawn


def _write(bench):
    """The csv of all methods, and that of their differences."""
    tables.write(bench.read(), bench.root / "tables" / "mnist")
    folder = bench.root / "tables"
    compared = pd.read_csv(folder / "mnist_comparison.csv").set_index(["set", "method"])
    return pd.read_csv(folder / "mnist.csv", index_col="method"), compared


def _text(bench, kind="md", end=""):
    return (bench.root / "tables" / f"mnist{end}.{kind}").read_text(encoding="utf-8")


def _cells(bench, row):
    (found,) = [line for line in _text(bench).splitlines() if line.startswith(f"| {LABELS[row]} ")]
    return [cell.strip() for cell in found.split("|")[1:-1]]


def _all_right(bench, row, sets=SETS):
    for seed in range(3):
        table = pd.read_parquet(bench.predictions(row, seed))
        table.loc[table["set"].isin(sets), "prediction"] = table["label"]
        table.to_parquet(bench.predictions(row, seed))


def test_csv_has_mean_and_sample_deviation_of_each_method(bench):
    table, _ = _write(bench)
    scores = ("accuracy", "macro_f1", "balanced_accuracy", "auc")
    assert list(table.columns) == [
        "label", "seeds",
        *(f"{name}_{score}_{key}" for score in scores for name in SETS for key in ("mean", "std")),
        "background_relevance_mean", "background_relevance_std", "background_area", "explainer",
        "prediction_changes_mean", "prediction_changes_std",
        "train_seconds_mean", "train_seconds_std", "data", "stand_in",
    ]  # fmt: skip
    assert list(table.index) == list(LABELS)
    row = table.loc["stochastic_isnet"]
    assert row["seeds"] == 3
    assert row["deceiving_accuracy_mean"] == pytest.approx(0.967)
    assert row["deceiving_accuracy_std"] == pytest.approx(0.01)
    assert row["background_relevance_mean"] == pytest.approx(0.05)
    assert row["train_seconds_std"] == pytest.approx(2.0)
    assert table.loc["resnet", "iid_accuracy_mean"] == pytest.approx((0.99 + 1 + 1) / 3, abs=1e-6)


def test_csv_of_differences_has_a_row_for_each_test_set_and_method(bench):
    _, table = _write(bench)
    assert list(table.columns) == [
        "label", "seeds", "images", "metric", "value", "low", "high", "best", "reference",
        "difference", "difference_low", "difference_high", "p", "p_holm", "data", "stand_in",
    ]  # fmt: skip
    assert list(table.index) == [(name, row) for name in SETS for row in LABELS]
    assert set(table["seeds"]) == {3}
    assert set(table["images"]) == {IMAGES}
    assert table.loc[("ood", "resnet"), "label"] == "ResNet (plain)"
    assert set(table["metric"]) == {"accuracy"}
    assert table.loc[("ood", "resnet"), "value"] == pytest.approx(0.35)
    assert (table["low"] <= table["value"]).all()
    assert (table["value"] <= table["high"]).all()


def test_differences_are_from_the_best_isnet_of_the_test_set(bench):
    _, table = _write(bench)
    # The plain network is best on iid, but no ISNet.
    assert set(table.loc["iid", "reference"].dropna()) == {"original_isnet"}
    for name in SETS:
        (reference,) = table.loc[name, "reference"].dropna().unique()
        assert pd.isna(table.loc[(name, reference), ["reference", "difference", "p"]]).all()
    row = table.loc[("ood", "resnet")]
    best = table.loc[("ood", row["reference"]), "value"]
    assert row["difference"] == pytest.approx(row["value"] - best, abs=1e-5)
    assert row["difference_low"] < row["difference"] < row["difference_high"] < 0
    assert row["p"] <= row["p_holm"] < 0.001
    frame = bench.read().table("predictions.parquet")
    expected = statistics.pairwise(frame).set_index(["set", "method", "other"])
    assert row["p_holm"] == pytest.approx(expected.loc[("ood", "resnet", row["reference"]), "p_holm"], rel=1e-4)


def test_classes_table_has_the_confusion_matrix(bench):
    _write(bench)
    classes = pd.read_csv(bench.root / "tables" / "mnist_classes.csv", dtype={"class": str})
    row = classes.set_index(["method", "set", "class"]).loc[("original_isnet", "ood", "9")]
    # Accuracies 0.956, 0.966, 0.976; right images 96, 97, 98.
    assert row["precision"] == pytest.approx(0.966)
    assert row["recall"] == pytest.approx(0.97)
    assert np.isnan(row["specificity"])
    assert (row["support"], row["predicted_9"], row["predicted_0"], row["predicted_1"]) == (100, 97, 3, 0)
    assert len(classes) == 4 * 3 * 10


def test_markdown_is_in_percent_under_a_title_line(bench):
    _write(bench)
    title, _, header, _, *body = _text(bench).splitlines()
    assert title.startswith("MNIST with a synthetic background bias. Data: MNIST.")
    assert "3 seeds (mean ± sample standard deviation)" in title
    assert "STAND-IN" not in title
    assert [cell.strip() for cell in header.split("|")[2:5]] == ["iid (%)", "ood (%)", "deceiving (%)"]
    assert _cells(bench, "resnet")[:5] == [
        "ResNet (plain)", "**99.7 ± 0.6**", "34.8 ± 1.0", "2.1 ± 1.0", "62.0 ± 0.0",
    ]  # fmt: skip
    assert len(body) == len(LABELS)
    text = _text(bench, end="_comparison")
    assert text.startswith("MNIST with a synthetic background bias. Data: MNIST. Accuracy, 3 seeds, with 95 %")
    assert "over seeds and test images" in text
    _, *sections = text.split("## ")
    assert [section.split("\n", 1)[0] for section in sections] == list(SETS)
    assert "Best ISNet: Original ISNet." in sections[0]
    cells = [cell.strip() for cell in sections[1].split("\n")[6].split("|")[1:-1]]
    assert cells[:2] == ["ResNet (plain)", "35.0"]
    assert cells[3].startswith("-")
    assert cells[5] == "< 0.001"
    reference = next(line for line in sections[0].splitlines() if line.startswith("| Original ISNet"))
    assert [cell.strip() for cell in reference.split("|")[4:7]] == ["", "", ""]


def test_latex_uses_booktabs_and_escapes_labels(bench):
    bench.experiment["methods"]["resnet"]["label"] = "50 % of A&B_1"
    _write(bench)
    for end, number in (("", 1), ("_comparison", len(SETS))):
        text = _text(bench, "tex", end)
        assert text.count("usepackage{booktabs}") == 1
        for rule in ("toprule", "midrule", "bottomrule"):
            assert text.count(f"\\{rule}") == number
        assert r"50 \% of A\&B\_1 &" in text
    assert r"\label{tab:mnist_comparison_ood}" in text
    assert r"\caption{ood test images. MNIST with" in text
    assert "$<$ 0.001" in text
    text = _text(bench, "tex")
    assert r"A\&B\_1 & \textbf{99.7 $\pm$ 0.6} &" in text
    assert r"\caption{MNIST with a synthetic background bias. Data: MNIST." in text
    assert not re.search(r"(?<!\\)[%_]", text.split("\n", 1)[1])


def test_the_score_of_the_experiment_is_shown_and_compared(bench):
    bench.experiment["score"] = "macro_f1"
    table, compared = _write(bench)
    assert table.loc["resnet", "ood_macro_f1_mean"] == pytest.approx(0.348 / 2)
    assert "Macro F1 on iid, ood, deceiving test images" in _text(bench)
    assert "| 17.4 ± 0.5 |" in _text(bench)
    assert np.isnan(table.loc["resnet", "iid_auc_mean"])
    found = [pd.read_parquet(bench.predictions("resnet", seed)).query("set == 'ood'") for seed in range(3)]
    scores = [f1_score(one["label"], one["prediction"], average="macro") for one in found]
    assert compared.loc[("ood", "resnet"), "value"] == pytest.approx(np.mean(scores), abs=1e-5)
    assert set(compared["metric"]) == {"macro_f1"}
    assert _text(bench, end="_comparison").count("Macro F1 (%)") == len(SETS)
    # The area under the curve cannot be had from predictions alone.
    bench.experiment["score"] = "auc"
    _, compared = _write(bench)
    assert set(compared["metric"]) == {"accuracy"}
    assert "**" not in _text(bench)
    assert "Bold" not in _text(bench)


def test_the_best_score_is_bold_only_where_it_differs_from_the_second(bench):
    _all_right(bench, "resnet", ["deceiving"])
    _, table = _write(bench)
    # On iid images, too, it is right more often than all others; on ood images two ISNets are alike.
    marked = [("iid", "resnet"), ("deceiving", "resnet")]
    assert table.index[table["best"]].tolist() == marked
    assert _cells(bench, "resnet")[1:4] == ["**99.7 ± 0.6**", "34.8 ± 1.0", "**2.1 ± 1.0**"]
    for end in ("", "_comparison"):
        assert _text(bench, end=end).count("**") == 2 * len(marked)
        assert "Bold: the highest value, if it differs significantly (p < 0.05" in _text(bench, end=end)
        assert _text(bench, "tex", end).count(r"\textbf{") == len(marked)


def test_oracles_are_marked_as_such_and_never_as_best(bench):
    bench.experiment["methods"]["resnet"]["method"] = "masked_input"
    _all_right(bench, "resnet")
    _all_right(bench, "original_isnet", ["deceiving"])
    _, table = _write(bench)
    assert (table.loc[(slice(None), "resnet"), "value"] == 1).all()
    # It is compared all the same, and no other is second to it.
    assert table.loc[(slice(None), "resnet"), "p_holm"].notna().all()
    assert table.index[table["best"]].tolist() == [("deceiving", "original_isnet")]
    assert _cells(bench, "original_isnet")[3] == "**96.5 ± 1.0**"
    for end, number in (("", 1), ("_comparison", len(SETS))):
        text = _text(bench, end=end)
        assert text.count("| ResNet (plain) ‡") == text.count("‡ An oracle, which sees the true masks") == number
    assert r"ResNet (plain) $\ddagger$ &" in _text(bench, "tex")


def test_other_explainers_are_marked(bench):
    for seed in bench.raw["seeds"]:
        bench.change("original_isnet", seed, explainer="Gradient × Input")
    table, _ = _write(bench)
    assert table.loc["original_isnet", "explainer"] == "Gradient × Input"
    text = _text(bench)
    assert re.search(r"Original ISNet .* 5\.0 ± 1\.0 † \|", text)
    assert text.count("†") == 2
    assert "† Not by LRP-epsilon with z^B input rule, which does not fit this network, but by Gradient × Input." in text
    assert r"$\dagger$" in _text(bench, "tex")


def test_a_single_seed_has_no_spread_and_says_so(bench):
    bench.raw["seeds"] = [1]
    table, compared = _write(bench)
    assert table["ood_accuracy_std"].isna().all()
    assert table.loc["resnet", "ood_accuracy_mean"] == pytest.approx(0.348)
    assert "±" not in _text(bench)
    assert "1 seed." in _text(bench)
    assert r"\pm" not in _text(bench, "tex")
    assert set(compared["seeds"]) == {1}
    said = "Accuracy, 1 seed, with 95 % intervals over test images (one seed says nothing"
    assert said in _text(bench, end="_comparison")


def test_a_method_with_a_run_without_relevance_has_none(bench, drawn):
    sets = json.loads((bench.run("resnet", 0) / "metrics.json").read_text())["sets"]
    sets["iid"]["background_relevance"] = None
    bench.change("resnet", 0, sets=sets)
    stored = stored_heatmaps(biased=True)
    np.savez(bench.run("resnet", 0) / "heatmaps.npz", **{**stored, "iid_relevance": 0 * stored["iid_relevance"]})
    table, _ = _write(bench)
    assert table["background_relevance_mean"].isna().to_list() == [True, False, False, False]
    assert _cells(bench, "resnet")[3:6] == ["2.1 ± 1.0", "none", "71.0"]
    figures.heatmaps(bench.read(), bench.root / "h")
    assert [panel.get_xlabel() for panel in drawn[0].axes[2:4]] == ["no map", "0 %"]


def test_stand_in_data_are_named_in_every_title(bench, drawn):
    title = "scikit-learn 8x8 digits, upsampled (stand-in for MNIST)"
    bench.change_data(title, stand_in=True)
    assert all(table["stand_in"].all() for table in _write(bench))
    texts = [_text(bench, kind, end) for kind in ("md", "tex", "html") for end in ("", "_comparison")]
    for draw in (figures.accuracy, figures.heatmaps, figures.tradeoff):
        draw(bench.read(), bench.root / "x")
    texts += [" ".join(fig.get_suptitle().split()) for fig in drawn]
    assert len(texts) == 9
    for text in texts:
        assert "STAND-IN DATA: MNIST" in text
        assert title in text


def test_test_sets_and_their_order_come_from_the_runs(bench, drawn):
    bench.experiment |= {"methods": {"resnet": {}}, "gallery": []}
    first = json.loads((bench.run("resnet", 0) / "metrics.json").read_text())["sets"]
    for seed in range(3):
        bench.change("resnet", seed, sets={"near": first["ood"], "far": first["iid"]})
        predicted = pd.read_parquet(bench.predictions("resnet", seed)).replace({"ood": "near", "iid": "far"})
        chosen = [predicted[predicted["set"] == name] for name in ("near", "far")]
        pd.concat(chosen).to_parquet(bench.predictions("resnet", seed))
    table, compared = _write(bench)
    assert list(table.columns[2:5]) == ["near_accuracy_mean", "near_accuracy_std", "far_accuracy_mean"]
    # No ISNet takes part.
    assert compared["difference"].isna().all()
    assert not compared["best"].any()
    assert "Best ISNet" not in _text(bench, end="_comparison")
    figures.accuracy(bench.read(), bench.root / "a")
    assert [panel.get_title() for panel in drawn[0].axes] == ["near", "far"]


def test_runs_that_saw_different_images_are_not_compared(bench):
    path = bench.predictions("original_isnet", 1)
    table = pd.read_parquet(path)
    table.assign(label=9 - table["label"]).to_parquet(path)
    with pytest.raises(BenchError, match=r"experiment mnist cannot be compared .*different images.*evaluate"):
        _write(bench)
