"""Published snapshots: what is in them, what is never in them, and that tables and figures come out of them again."""

import json
import logging

import numpy as np
import pandas as pd
import pytest
import reporting_runs
import yaml
from reporting_runs import LABELS, predictions_path, stored_heatmaps

from isnet_bench import cli
from isnet_bench import data as datasets
from isnet_bench.data import xray
from isnet_bench.errors import BenchError
from isnet_bench.reporting import collect, figures, outputs, publishing, style

config, results = reporting_runs.config, reporting_runs.results
TEXT = "# as the user wrote it\n"


@pytest.fixture
def finished(config, results, monkeypatch):
    """What a finished experiment leaves: also histories, a relevance range, weights, logs, and the data."""
    monkeypatch.setitem(style.RC, "savefig.dpi", 40)
    config["experiments"]["mnist"]["data"] = {"name": "mnist"}
    config["experiments"]["mnist"]["gallery"] = ["resnet", "original_isnet"]
    del config["experiments"]["mnist"]["methods"]["stochastic_isnet_f8"]
    for row in LABELS:
        for seed in config["seeds"]:
            folder = collect.folder(results, "mnist", row, seed)
            _edit(folder / "run.json", name="mnist")
            (folder / "history.csv").write_text("epoch\n1\n")
            (folder / "weights.safetensors").write_bytes(b"0" * 1000)
    _write(results / "mnist/range/original_isnet_12ab/seed0.json", "{}")
    _write(results / "mnist/range/classifier/seed0/run.json", "{}")
    _write(results / "mnist/range/classifier/seed0/weights.safetensors", "")
    _write(results / "logs/mnist/prepare.log", "")
    _write(results / "data/mnist/data.json", '{"name": "mnist"}')
    _write(results / "data/mnist/iid.csv", "image\npatient_1.png\n")
    return results


@pytest.fixture
def undrawn(monkeypatch):
    """Leaves out tables and figures, which take most of the time."""
    monkeypatch.setattr(outputs, "redraw", lambda config, results: None)


def _write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _edit(run, **data):
    record = json.loads(run.read_text())
    run.write_text(json.dumps({**record, "data": {**record["data"], **data}}))


def _files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("undrawn")
def test_a_snapshot_holds_the_evidence_and_nothing_else(config, finished, tmp_path):
    publishing.publish(config, TEXT, finished, tmp_path / "out")
    rows = ("resnet", "original_isnet", "stochastic_isnet")
    kept = ("run.json", "history.csv", "metrics.json", "predictions.parquet")
    assert _files(tmp_path / "out") == {
        "config.yaml",
        "data/mnist/data.json",
        "mnist/range/original_isnet_12ab/seed0.json",
        "mnist/range/classifier/seed0/run.json",
        *(f"mnist/{row}/seed{seed}/{name}" for row in rows for seed in range(3) for name in kept),
        *(f"mnist/{row}/seed0/heatmaps.npz" for row in rows[:2]),
    }
    assert (tmp_path / "out/config.yaml").read_text() == TEXT


@pytest.mark.usefixtures("undrawn")
def test_mediation_is_published_where_it_was_asked_for(config, finished, tmp_path):
    table = finished / "mnist/resnet/seed1/mediation.csv"
    _write(table, "change,images\nmark added,3\n")
    publishing.publish(config, TEXT, finished, tmp_path / "out")
    copy = tmp_path / "out/mnist/resnet/seed1/mediation.csv"
    assert copy.read_text() == table.read_text()
    assert len([name for name in _files(tmp_path / "out") if "mediation" in name]) == 1
    table.unlink()
    publishing.publish(config, TEXT, finished, tmp_path / "out")
    assert not copy.exists()


@pytest.mark.usefixtures("undrawn")
def test_predictions_are_the_same_in_a_few_kilobytes(config, finished, tmp_path):
    publishing.publish(config, TEXT, finished, tmp_path / "out")
    path = predictions_path(tmp_path / "out", "resnet", 1)
    assert path.stat().st_size < 4000 < predictions_path(finished, "resnet", 1).stat().st_size
    assert list(pd.read_parquet(path).columns) == ["set", "index", "label", "prediction"]
    sets = ("iid", "ood", "deceiving")
    pd.testing.assert_frame_equal(
        collect.predictions(tmp_path / "out", "mnist", "resnet", 1, sets),
        collect.predictions(finished, "mnist", "resnet", 1, sets),
    )


@pytest.mark.usefixtures("undrawn")
def test_heatmaps_are_the_drawn_ones(config, finished, tmp_path):
    publishing.publish(config, TEXT, finished, tmp_path / "out")
    found = collect.heatmaps(tmp_path / "out", "mnist", "resnet", 0, "iid")
    stored = {key.removeprefix("iid_"): values[[0, 2, 3, 4]] for key, values in stored_heatmaps(biased=True).items()}
    np.testing.assert_allclose(found["images"], np.rint(255 * stored["images"]) / 255, atol=1e-6)
    np.testing.assert_array_equal(found["masks"], stored["masks"])
    np.testing.assert_array_equal(found["labels"], stored["labels"])
    largest = np.abs(stored["relevance"]).max(axis=(1, 2, 3), keepdims=True)
    np.testing.assert_allclose(found["relevance"], stored["relevance"] / largest, atol=5e-4)


def test_tables_and_figures_come_out_of_a_snapshot_again(config, finished, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "EXAMPLES", 1)
    out = tmp_path / "out"
    publishing.publish(config, TEXT, finished, out)
    before = {name: (out / name).read_bytes() for name in _files(out)}
    made = {name for name in before if name.startswith(("tables", "figures"))}
    assert {f"tables/mnist{end}.csv" for end in ("", "_classes", "_comparison")} <= made
    assert {f"figures/mnist_{kind}.{end}" for kind in outputs.FIGURES for end in ("pdf", "png")} <= made
    for name in made:
        (out / name).unlink()
    outputs.redraw(config, out)
    assert before.keys() == _files(out)
    for name, content in before.items():
        assert (out / name).read_bytes() == content, name


def test_numbers_are_those_of_the_whole_runs(config, finished, tmp_path, monkeypatch):
    monkeypatch.setattr(outputs, "FIGURES", ())
    publishing.publish(config, TEXT, finished, tmp_path / "out")
    outputs.redraw(config, finished)
    tables = {name for name in _files(finished) if name.startswith("tables/")}
    assert len(tables) >= 6
    for name in tables:
        assert (finished / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


@pytest.mark.usefixtures("undrawn")
def test_a_second_snapshot_replaces_the_first(config, finished, tmp_path, caplog):
    out = tmp_path / "out"
    publishing.publish(config, TEXT, finished, out)
    _write(out / "tables/old.csv", "")
    _write(out / "mnist_tuning/rrr_candidate1/seed5/run.json", "{}")
    config["experiments"]["mnist"]["gallery"] = ["resnet"]
    del config["experiments"]["mnist"]["methods"]["stochastic_isnet"]
    config["seeds"] = [0, 1]
    publishing.publish(config, TEXT, finished, out)
    kept = _files(out)
    assert not [name for name in kept if "stochastic" in name or "seed2" in name]
    assert {name for name in kept if name.endswith("npz")} == {"mnist/resnet/seed0/heatmaps.npz"}
    assert {"tables/old.csv", "mnist_tuning/rrr_candidate1/seed5/run.json"} <= kept
    assert [record.message.split()[0] for record in caplog.records if record.levelno == logging.WARNING] == [
        str(out / "tables/old.csv")
    ]


def test_results_are_not_published_over_themselves(config, finished):
    with pytest.raises(BenchError, match="holds the results themselves"):
        publishing.publish(config, TEXT, finished, finished / "tables" / "..")


@pytest.mark.usefixtures("undrawn")
def test_an_unfinished_run_publishes_nothing(config, finished, tmp_path):
    predictions_path(finished, "stochastic_isnet", 2).unlink()
    with pytest.raises(BenchError, match=r"stochastic_isnet.seed2.*missing"):
        publishing.publish(config, TEXT, finished, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_every_data_set_says_whether_its_images_may_be_published():
    assert {name: datasets.publishable(name, name) for name in datasets.names()} == {
        "mnist": True,
        "phantom": True,
        "xray": frozenset({"covid_cxnet"}),
    }
    # Those that stand in.
    assert datasets.publishable("phantom", "xray") is True
    assert datasets.publishable("digits", "mnist") is True


@pytest.fixture
def hospital(config, finished):
    """Makes the data X-rays of given sources, image by image as stored."""

    def write(**columns):
        config["experiments"]["mnist"]["data"] = {"name": "xray"}
        for row in LABELS:
            _edit(collect.folder(finished, "mnist", row, 0) / "run.json", name="xray")
        images = np.rint(255 * stored_heatmaps(biased=True)["iid_images"]).astype(np.uint8)
        # In another order than among the examples.
        np.savez(finished / "data/mnist/iid.npz", images=images[::-1])
        records = pd.DataFrame({"image": "a.png", **{name: values[::-1] for name, values in columns.items()}})
        records.to_csv(finished / "data/mnist/iid.csv", index_label="index")
        return finished

    return write


@pytest.mark.usefixtures("undrawn")
def test_x_rays_of_other_sources_are_never_published(config, hospital, tmp_path):
    finished = hospital(source=["covid_cxnet", "nih", "covid_cxnet", "nih", "covid_cxnet", "nih"])
    publishing.publish(config, TEXT, finished, tmp_path / "out")
    labels = collect.heatmaps(tmp_path / "out", "mnist", "resnet", 0, "iid")["labels"]
    # Of labels 3, 3, 0, 7, 1, 0.
    assert labels.tolist() == [3, 0, 1]
    stored = stored_heatmaps(biased=True)["iid_images"]
    found = collect.heatmaps(tmp_path / "out", "mnist", "original_isnet", 0, "iid")["images"]
    np.testing.assert_allclose(found, stored[[0, 2, 4]], atol=0.003)


@pytest.mark.parametrize(
    "columns",
    [
        {"source": ["nih"] * 6},
        {"source": ["covid_cxnet"] * 6, "background_source": ["nih"] * 6},
        {"source": [None] * 6},
        {"label": ["covid19"] * 6},
    ],
)
@pytest.mark.usefixtures("undrawn")
def test_no_image_that_may_be_published_is_an_error(config, hospital, tmp_path, columns):
    finished = hospital(**columns)
    with pytest.raises(BenchError, match="must not be published but for those of covid_cxnet; set its gallery to "):
        publishing.publish(config, TEXT, finished, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    config["experiments"]["mnist"]["gallery"] = []
    publishing.publish(config, TEXT, finished, tmp_path / "out")
    assert not [name for name in _files(tmp_path / "out") if "heatmaps" in name or name.endswith("iid.csv")]


def test_images_that_are_not_found_are_not_permitted(tmp_path):
    known = np.arange(3 * 16, dtype=np.uint8).reshape(3, 1, 4, 4)
    np.savez(tmp_path / "iid.npz", images=known)
    pd.DataFrame({"source": ["covid_cxnet", "nih", "covid_cxnet"]}).to_csv(tmp_path / "iid.csv", index_label="index")
    asked = np.concatenate([known[::-1], known[:1] + 1])
    assert publishing.permitted(xray.PUBLISHABLE, tmp_path, "iid", asked).tolist() == [True, False, True, False]
    # The same image under two sources is none that may be published.
    np.savez(tmp_path / "iid.npz", images=known[[0, 0, 2]])
    assert publishing.permitted(xray.PUBLISHABLE, tmp_path, "iid", known).tolist() == [False, False, True]


@pytest.mark.usefixtures("undrawn")
def test_data_that_are_gone_are_an_error(config, hospital, tmp_path):
    finished = hospital(source=["covid_cxnet"] * 6)
    (finished / "data/mnist/iid.npz").unlink()
    with pytest.raises(BenchError, match="does not tell where the images are from"):
        publishing.publish(config, TEXT, finished, tmp_path / "out")


def test_verbs(config, finished, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(outputs, "FIGURES", ())
    experiment = config["experiments"]["mnist"] | {
        "backbone": {"name": "resnet_small"},
        "training": {"epochs": 1, "batch_size": 8, "learning_rate": 1e-3, "weight_decay": 0, "gradient_clip": None},
    }
    text = yaml.safe_dump({"seeds": [0, 1, 2], "results": str(finished), "experiments": {"mnist": experiment}})
    _write(tmp_path / "bench.yaml", text)
    assert cli.main(["publish", "--config", str(tmp_path / "bench.yaml")]) == 0, capsys.readouterr().err
    out = finished / "published"
    assert (out / "config.yaml").read_text() == text
    (out / "tables/mnist.md").unlink()
    assert cli.main(["redraw", "--config", str(out / "config.yaml"), "--results", str(out)]) == 0
    assert (out / "tables/mnist.md").exists()


def test_timing_studies_that_were_not_measured_are_left_out_by_name(tmp_path, caplog):
    config = {"timing": {"studies": {"large": {}}}}
    assert outputs.measured_studies(config, tmp_path) == ["main", "large"]
    _write(tmp_path / "timing/training_step_large.json", "{}")
    assert outputs.measured_studies(config, tmp_path) == ["large"]
    assert "timing study main is left out" in caplog.text
