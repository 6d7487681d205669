"""The table of differences, from run folders that the tests write themselves."""

import numpy as np
import pandas as pd
import pytest
import reporting_runs
from reporting_runs import IMAGES, LABELS, SETS, predictions_path
from sklearn.metrics import f1_score

from isnet_bench.errors import BenchError
from isnet_bench.reporting import comparison, statistics

config, results = reporting_runs.config, reporting_runs.results


def _table(config, results):
    comparison.write(config, "mnist", results, results / "tables" / "mnist_comparison")
    return pd.read_csv(results / "tables" / "mnist_comparison.csv").set_index(["set", "method"])


def _markdown(results):
    return (results / "tables" / "mnist_comparison.md").read_text(encoding="utf-8")


def test_csv_has_a_row_for_each_test_set_and_method(config, results):
    table = _table(config, results)
    assert list(table.columns) == [
        "label", "seeds", "images", "metric", "value", "low", "high", "best", "reference",
        "difference", "difference_low", "difference_high", "p", "p_holm", "data", "stand_in",
    ]  # fmt: skip
    order = ["resnet", "original_isnet", "stochastic_isnet", "stochastic_isnet_f8"]
    assert list(table.index) == [(name, row) for name in SETS for row in order]
    assert set(table["seeds"]) == {3}
    assert set(table["images"]) == {IMAGES}
    assert table.loc[("ood", "resnet"), "label"] == "ResNet (plain)"
    assert set(table["metric"]) == {"accuracy"}
    assert table.loc[("ood", "resnet"), "value"] == pytest.approx(0.35)
    assert (table["low"] <= table["value"]).all()
    assert (table["value"] <= table["high"]).all()


def test_differences_are_from_the_best_isnet_of_the_test_set(config, results):
    table = _table(config, results)
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
    frame = comparison.predictions(comparison.collect.runs(config, "mnist", results), results)
    expected = statistics.pairwise(frame).set_index(["set", "method", "other"])
    assert row["p_holm"] == pytest.approx(expected.loc[("ood", "resnet", row["reference"]), "p_holm"], rel=1e-4)


def test_markdown_has_a_section_for_each_test_set(config, results):
    _table(config, results)
    text = _markdown(results)
    assert text.startswith("MNIST with a synthetic background bias. Data: MNIST. Accuracy, 3 seeds, with 95 %")
    assert "over seeds and test images" in text
    assert "p < 0.05" in text
    _, *sections = text.split("## ")
    assert [section.split("\n", 1)[0] for section in sections] == list(SETS)
    assert "Best ISNet: Original ISNet." in sections[0]
    cells = [cell.strip() for cell in sections[1].split("\n")[6].split("|")[1:-1]]
    assert cells[:2] == ["ResNet (plain)", "35.0"]
    assert cells[3].startswith("-")
    assert cells[5] == "< 0.001"
    reference = next(line for line in sections[0].splitlines() if line.startswith("| Original ISNet"))
    assert [cell.strip() for cell in reference.split("|")[4:7]] == ["", "", ""]


def test_bold_is_the_best_only_where_it_differs_from_the_second(config, results):
    for seed in range(3):
        table = pd.read_parquet(predictions_path(results, "resnet", seed))
        table.loc[table["set"] == "deceiving", "prediction"] = table["label"]
        table.to_parquet(predictions_path(results, "resnet", seed))
    table = _table(config, results)
    marked = table.index[table["best"]].tolist()
    assert ("deceiving", "resnet") in marked
    assert not table.loc["ood", "best"].any()
    assert _markdown(results).count("**") == 2 * len(marked)


def test_oracles_are_no_competitors(config, results):
    config["experiments"]["mnist"]["methods"]["resnet"]["method"] = "masked_input"
    for seed in range(3):
        table = pd.read_parquet(predictions_path(results, "resnet", seed))
        table.assign(prediction=table["label"]).to_parquet(predictions_path(results, "resnet", seed))
    table = _table(config, results)
    assert (table.loc[(slice(None), "resnet"), "value"] == 1).all()
    assert not table.loc[(slice(None), "resnet"), "best"].any()
    # It is compared all the same.
    assert table.loc[(slice(None), "resnet"), "p_holm"].notna().all()
    text = _markdown(results)
    assert text.count("| ResNet (plain) ‡") == text.count("‡ An oracle") == len(SETS)


def test_latex_has_a_table_for_each_test_set(config, results):
    _table(config, results)
    text = (results / "tables" / "mnist_comparison.tex").read_text(encoding="utf-8")
    assert text.count("usepackage{booktabs}") == 1
    for name in SETS:
        assert rf"\label{{tab:mnist_comparison_{name}}}" in text
        assert rf"\caption{{{name} test images. MNIST with" in text
    for rule in ("toprule", "midrule", "bottomrule"):
        assert text.count(f"\\{rule}") == len(SETS)
    assert "ResNet (plain) & 35.0 & " in text
    assert "$<$ 0.001" in text


def test_the_score_of_the_experiment_is_compared(config, results):
    config["experiments"]["mnist"]["score"] = "macro_f1"
    table = _table(config, results)
    assert table.loc[("ood", "resnet"), "value"] == pytest.approx(
        np.mean([_f1(predictions_path(results, "resnet", seed)) for seed in range(3)]), abs=1e-5
    )
    assert set(table["metric"]) == {"macro_f1"}
    text = _markdown(results)
    assert "Data: MNIST. Macro F1, 3 seeds" in text
    assert text.count("Macro F1 (%)") == len(SETS)
    # The area under the curve cannot be had from predictions alone.
    config["experiments"]["mnist"]["score"] = "auc"
    assert set(_table(config, results)["metric"]) == {"accuracy"}


def _f1(path):
    stored = pd.read_parquet(path).query("set == 'ood'")
    return f1_score(stored["label"], stored["prediction"], average="macro")


def test_one_seed_is_compared_over_images_and_says_so(config, results):
    config["seeds"] = [1]
    assert set(_table(config, results)["seeds"]) == {1}
    assert "Accuracy, 1 seed, with 95 % intervals over test images (one seed says nothing" in _markdown(results)


def test_experiments_without_an_isnet_have_no_differences(config, results):
    config["experiments"]["mnist"]["methods"] = {"resnet": {}}
    table = _table(config, results)
    assert len(table) == len(SETS)
    assert table["difference"].isna().all()
    assert not table["best"].any()
    assert "Best ISNet" not in _markdown(results)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.unlink(), "missing"),
        (lambda path: path.write_bytes(b"no parquet"), "cannot be read"),
        (lambda path: pd.DataFrame({"set": ["iid"]}).to_parquet(path), "cannot be read"),
        (lambda path: pd.read_parquet(path).query("set != 'ood'").to_parquet(path), "other test sets"),
    ],
)
def test_spoilt_predictions_are_an_error_that_names_the_file(config, results, spoil, said):
    path = predictions_path(results, "original_isnet", 1)
    spoil(path)
    with pytest.raises(BenchError, match=f"{said}.*evaluate this run again") as caught:
        _table(config, results)
    assert str(path) in str(caught.value)
    assert not (results / "tables").exists()


def test_runs_that_saw_different_images_are_not_compared(config, results):
    path = predictions_path(results, "original_isnet", 1)
    table = pd.read_parquet(path)
    table.assign(label=9 - table["label"]).to_parquet(path)
    with pytest.raises(BenchError, match=r"experiment mnist cannot be compared .*different images.*evaluate"):
        _table(config, results)


def test_stand_in_data_are_named(config, results):
    for row in LABELS:
        for seed in config["seeds"]:
            reporting_runs.change(results, row, seed, data="digits (stand-in for MNIST)", stand_in=True)
    table = _table(config, results)
    assert table["stand_in"].all()
    assert _markdown(results).startswith("STAND-IN DATA: MNIST with a synthetic background bias. Data: digits")
