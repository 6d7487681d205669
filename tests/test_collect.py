"""What is gathered from run folders, and what is wrong with some."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import reporting_runs
from reporting_runs import LABELS, SETS, stored_heatmaps

from isnet_bench.io.errors import BenchError
from isnet_bench.io.files import digests
from isnet_bench.layout import Layout
from isnet_bench.reporting import runs, snapshot

bench = reporting_runs.bench


def _collected(bench):
    bench.collect()
    return snapshot.read(Layout(bench.root).collected("mnist"))


def test_a_snapshot_has_every_number_to_the_last_digit(bench):
    bench.change("resnet", 1, train_seconds=1 / 3)
    share = np.nextafter(0.3, 1)
    sets = json.loads((bench.run("resnet", 1) / "metrics.json").read_text())["sets"]
    sets["ood"] |= {"accuracy": share, "accuracy_interval": [0.1 + 0.2, 1.0], "images_explained": 7}
    kept = list(range(10))
    bench.change("resnet", 1, sets=sets, background_changes={"mark added": 2 / 3}, training_masks=kept)
    found = _collected(bench)
    score = found.tables["scores.csv"].set_index([*snapshot.KEY, "set"]).loc[("mnist", "resnet", 1, "ood")]
    assert (score["accuracy"], score["accuracy_low"], score["accuracy_high"]) == (share, 0.1 + 0.2, 1)
    assert (score["images"], score["images_explained"]) == (2000, 7)
    by_class = found.tables["classes.parquet"].query("row == 'resnet' and seed == 1")
    assert by_class.groupby("set")["training_masks"].apply(list).to_list() == [kept] * 3
    run = found.tables["runs.csv"].set_index(snapshot.KEY).loc[("mnist", "resnet", 1)]
    assert json.loads(run["background_changes"]) == {"mark added": 2 / 3}
    assert json.loads(run["training"]) == reporting_runs.TRAINING
    assert (run["label"], run["oracle"], run["git_commit"]) == ("ResNet (plain)", False, "0123abcd")
    assert found.environments == {run["environment"]: {"versions": {"torch": "2"}, "hardware": {"cores": 2}}}
    assert found.data["mnist"]["title"] == "MNIST"
    assert 0.1 + 0.2 in set(found.tables["history.parquet"]["val_accuracy"])
    assert {len(found.tables[name]) for name in ("runs.csv", "scores.csv", "classes.parquet")} == {12, 36, 360}
    assert "mediation.parquet" not in found.tables


def test_predictions_are_the_same_in_few_bits(bench):
    table = _collected(bench).tables["predictions.parquet"].query("row == 'original_isnet' and seed == 2")
    before = pd.read_parquet(bench.predictions("original_isnet", 2))
    assert not [name for name in table if name.startswith("prob")]
    assert (table[["set", "index", "label", "prediction"]].to_numpy() == before.iloc[:, :4].to_numpy()).all()


def test_examples_of_the_gallery_are_those_of_the_first_seed_in_few_bits(bench):
    bench.experiment["gallery"] = ["resnet", "original_isnet"]
    found = _collected(bench).examples("mnist")
    assert found.keys() == {"images", "masks", "labels", "resnet", "original_isnet"}
    stored = {key.removeprefix("iid_"): values for key, values in stored_heatmaps(biased=True).items()}
    np.testing.assert_allclose(found["images"], np.rint(255 * stored["images"]) / 255, atol=1e-6)
    np.testing.assert_array_equal(found["masks"], stored["masks"])
    np.testing.assert_array_equal(found["labels"], stored["labels"])
    largest = np.abs(stored["relevance"]).max(axis=(1, 2, 3), keepdims=True)
    np.testing.assert_allclose(found["resnet"], stored["relevance"] / largest, atol=5e-4)
    bench.experiment["gallery"] = []
    assert _collected(bench).examples("mnist") == {}


def test_what_is_made_on_demand_is_gathered_where_it_is(bench):
    table = pd.DataFrame({"change": ["mark added"], "images": [3], "layer": ["conv"], "units": [0.5]})
    table.to_csv(bench.run("resnet", 1) / "mediation.csv", index=False)
    reporting_runs.write_run(Layout(bench.root).range_classifier("mnist", 2), "range_classifier", 2, {})
    measured = {"input": [{"c1": 1 / 3, "c2": 25.0, "mean": 2.0, "std": 0.1}]}
    found = {"experiment": "mnist", "seed": 0, "images": 9, "git_commit": "1e5", "git_dirty": False}
    found |= {"versions": {"torch": "2"}, "classifier": {"epochs": 4}, "ranges": measured}
    found |= {"method": "original_isnet", "explained": {"epsilon": 0.01, "input_rule": "zb"}}
    bench.change("original_isnet", 0, "run.json", range=found)
    tables = _collected(bench).tables
    assert tables["mediation.parquet"].iloc[0].to_list() == ["mnist", "resnet", 1, "mark added", 3, "conv", 0.5]
    assert tables["runs.csv"]["row"].to_list().count("range_classifier") == 1
    (part,) = tables["ranges.csv"].itertuples()
    explanation = "original_isnet, epsilon 0.01, input_rule zb"
    assert (part.explanation, part.layer, part.c1, part.git_commit) == (explanation, "input", 1 / 3, "1e5")
    row = tables["runs.csv"].query("row == 'original_isnet' and seed == 0")
    assert row["range"].item() == part.range


def test_a_missing_run_is_an_error_that_says_how_to_make_it(bench):
    (bench.run("original_isnet", 2) / "metrics.json").unlink()
    with pytest.raises(BenchError) as caught:
        bench.collect()
    message = str(caught.value)
    assert str(bench.run("original_isnet", 2) / "metrics.json") in message
    assert "python -m isnet_bench evaluate" in message
    assert "--experiment mnist --row original_isnet --seed 2" in message
    assert not Layout(bench.root).collected("mnist").exists()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('{"data"', "", "cannot be read"),
        ('"accuracy": 1.0', '"accuracy": NaN', "finite number"),
        ('"accuracy": 1.0', '"accuracy": 1.7', "1.7"),
        ('"stand_in": false, ', "", "stand_in"),
        ('"seed": 1', '"seed": 0', "belongs to resnet with seed 0"),
    ],
)
def test_a_corrupt_run_is_an_error(bench, old, new, said):
    path = bench.run("resnet", 1) / "metrics.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(BenchError, match=re.escape(said)) as caught:
        bench.collect()
    assert str(path) in str(caught.value)
    assert "python -m isnet_bench evaluate" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "spoil", "said"),
    [
        ("heatmaps.npz", lambda path: path.unlink(), "missing"),
        ("heatmaps.npz", lambda path: path.write_bytes(b"no zip"), "cannot be read"),
        ("predictions.parquet", lambda path: path.write_bytes(b"no parquet"), "cannot be read"),
        ("predictions.parquet", lambda path: pd.DataFrame({"set": ["iid"]}).to_parquet(path), "cannot be read"),
        (
            "predictions.parquet",
            lambda path: pd.read_parquet(path).query("set != 'ood'").to_parquet(path),
            "other test sets",
        ),
    ],
)
def test_spoilt_files_are_an_error_that_names_them(bench, name, spoil, said):
    path = bench.run("original_isnet", 0) / name
    spoil(path)
    with pytest.raises(BenchError, match=rf"{said}.*evaluate .*--row original_isnet --seed 0") as caught:
        bench.collect()
    assert str(path) in str(caught.value)


def test_runs_that_do_not_belong_together_share_no_table(bench):
    path = bench.run("stochastic_isnet", 1) / "run.json"
    record = json.loads(path.read_text())
    bench.change("stochastic_isnet", 1, "run.json", data={**record["data"], "title": "digits", "stand_in": True})
    with pytest.raises(BenchError, match=r"stochastic_isnet.seed1 has the data 'digits', but .*resnet.seed0 has"):
        bench.collect()
    path.write_text(json.dumps({**record, "training": {**record["training"], "epochs": 7}}))
    with pytest.raises(BenchError, match=r"stochastic_isnet.seed1 was trained with another training than configured"):
        bench.collect()
    path.write_text(json.dumps(record))
    sets = json.loads((bench.run("resnet", 0) / "metrics.json").read_text())["sets"]
    bench.change("stochastic_isnet", 1, sets={"iid": sets["iid"]})
    with pytest.raises(BenchError, match=r"has the test sets \['iid'\], but .* has \['iid', 'ood', 'deceiving'\]"):
        bench.collect()


def test_heatmaps_of_different_images_and_unknown_sets_are_refused(bench):
    bench.experiment["gallery_set"] = "odd"
    with pytest.raises(BenchError, match=r"experiments\.mnist\.gallery_set: no test set 'odd'; the data mnist have"):
        bench.collect()
    del bench.experiment["gallery_set"]
    stored = stored_heatmaps(biased=False)
    np.savez(bench.run("stochastic_isnet", 0) / "heatmaps.npz", **{**stored, "iid_images": stored["iid_images"][::-1]})
    with pytest.raises(BenchError, match="stochastic_isnet and resnet stored heatmaps of different images"):
        bench.collect()


def test_what_was_not_collected_is_an_error_that_says_how_to(bench):
    with pytest.raises(BenchError, match=r"data\.json is missing: make it with: python -m isnet_bench collect"):
        runs.read(bench.config, "mnist", bench.root)
    bench.collect()
    bench.raw["seeds"] = [0, 5]
    with pytest.raises(BenchError, match=r"has no run of mnist, resnet with seed 5; .* --experiment mnist"):
        runs.read(bench.config, "mnist", bench.root)
    folder = Layout(bench.root).collected("mnist")
    (folder / "gallery.npz").unlink()
    with pytest.raises(BenchError, match=r"gallery\.npz is missing: make it with"):
        runs.read(bench.config, "mnist", bench.root)
    bench.raw["seeds"] = [0, 1, 2]
    bench.collect()
    (folder / "scores.csv").write_text('"')
    with pytest.raises(BenchError, match=r"scores\.csv is damaged, or belongs to something else: make it with"):
        snapshot.read(folder)


def test_the_frame_has_the_order_of_the_configuration(bench):
    bench.raw["seeds"] = [2, 0]
    bench.experiment["methods"] = dict(reversed(bench.experiment["methods"].items()))
    frame = bench.read().frame
    assert list(frame["method"].unique()) == ["stochastic_isnet", "stochastic_isnet_f8", "original_isnet", "resnet"]
    assert list(frame["seed"][:6]) == [2, 2, 2, 0, 0, 0]
    assert list(frame["set"][:3]) == list(SETS)
    assert len(frame) == len(LABELS) * 2 * len(SETS)


def test_a_snapshot_of_several_has_what_each_has(bench):
    one = _collected(bench)
    both = snapshot.concatenate([one, one])
    assert {name: len(table) for name, table in both.tables.items()} == {
        name: 2 * len(table) for name, table in one.tables.items()
    }
    snapshot.write(snapshot.concatenate([]), bench.root / "x")
    assert {path.name for path in (bench.root / "x").iterdir()} == {"data.json", "digests.json", "environments.json"}


def _sealed(bench):
    """Give a run the digests that trainings and evaluations write; return its folder."""
    folder = bench.run("resnet", 1)
    (folder / "weights.safetensors").write_bytes(b"weights")
    trained = digests(folder, ["weights.safetensors", "history.csv"])
    bench.change("resnet", 1, "run.json", files=trained)
    bench.change("resnet", 1, files=trained | digests(folder, ["predictions.parquet", "heatmaps.npz"]))
    return folder


@pytest.mark.parametrize("name", ["weights.safetensors", "history.csv", "predictions.parquet", "heatmaps.npz"])
def test_files_that_are_not_those_of_the_record_are_refused(bench, name):
    folder = _sealed(bench)
    bench.collect()
    other = bench.run("resnet", 2) / name
    (folder / name).write_bytes(other.read_bytes() + b"\n" if other.is_file() else b"other weights")
    with pytest.raises(BenchError, match=rf"seed1.{name} is damaged, or belongs to something else"):
        bench.collect()


def test_a_record_of_another_run_is_refused(bench):
    path = bench.run("resnet", 1) / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "row": "resnet", "seed": 2}))
    with pytest.raises(BenchError, match=r"seed1.run\.json belongs to seed 2: delete .*seed1, and run the workflow"):
        bench.collect()


def test_a_run_of_other_code_is_refused(bench):
    bench.change("resnet", 1, "run.json", source=bench.config.catalog.methods["resnet"].code)
    bench.collect()
    bench.change("resnet", 1, "run.json", source="0123")
    with pytest.raises(BenchError, match=r"seed1 was trained with other code of its method than there is now: delete"):
        bench.collect()


def test_metrics_of_weights_that_were_trained_again_are_refused(bench):
    folder = _sealed(bench)
    (folder / "weights.safetensors").write_bytes(b"newer weights")
    bench.change("resnet", 1, "run.json", files=digests(folder, ["weights.safetensors", "history.csv"]))
    with pytest.raises(BenchError, match=r"seed1.metrics\.json belongs to other weights; .* evaluate"):
        bench.collect()
