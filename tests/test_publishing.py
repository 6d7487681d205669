"""Published snapshots: what is in them, what is never in them, and that tables and figures come out of them again."""

import json
import shutil
from itertools import product

import numpy as np
import pandas as pd
import pytest
import reporting_runs
import yaml
from reporting_runs import LABELS, stored_heatmaps

from isnet_bench import cli
from isnet_bench import data as datasets
from isnet_bench.config import catalog
from isnet_bench.data import xray
from isnet_bench.io.errors import BenchError
from isnet_bench.layout import Layout
from isnet_bench.reporting import figures, outputs, publishing, runs, snapshot, style

TIMING = {"classes": [2], "methods": ["resnet"], "backbone": {"name": "resnet_small"}, "image_size": 16}
TIMING |= {"batch_size": 2, "rounds": 2}
TEXT = "# as the user wrote it\n"
OTHERS = {"config.yaml", "data.json", "digests.json", "environments.json", "gallery.npz"}


@pytest.fixture
def bench(request, monkeypatch):
    """A collected experiment of two rows in the gallery, beside all that is never published."""
    monkeypatch.setitem(style.RC, "savefig.dpi", 40)
    bench = request.getfixturevalue("finished")
    bench.experiment["gallery"] = ["resnet", "original_isnet"]
    del bench.experiment["methods"]["stochastic_isnet_f8"]
    (bench.run("resnet", 0) / "weights.safetensors").write_bytes(b"0" * 1000)
    _write(bench.root / "data/mnist/iid.csv", "image\npatient_1.png\n")
    bench.collect()
    return bench


finished = pytest.fixture(name="finished")(reporting_runs.bench._get_wrapped_function())


@pytest.fixture
def undrawn(monkeypatch):
    """Leaves out tables and figures, which take most of the time."""
    monkeypatch.setattr(outputs, "redraw", lambda cfg, results: None)


def _write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def _publish(bench, out):
    publishing.publish(bench.config, TEXT, bench.root, out)
    return snapshot.read(out)


@pytest.mark.usefixtures("undrawn")
def test_a_snapshot_holds_the_collected_runs_and_nothing_else(bench, tmp_path):
    found = _publish(bench, tmp_path / "out")
    tables = {"runs.csv", "scores.csv", "history.parquet", "classes.parquet", "predictions.parquet"}
    assert _files(tmp_path / "out") == {"config.yaml", *OTHERS, *tables}
    assert (tmp_path / "out/config.yaml").read_text() == TEXT
    collected = snapshot.read(Layout(bench.root).collected("mnist"))
    for name, table in collected.tables.items():
        pd.testing.assert_frame_equal(found.tables[name], table)
    # Only what is drawn: the first of each class, labels being 3, 3, 0, 7, 1, 0.
    for key, values in collected.examples("mnist").items():
        np.testing.assert_array_equal(found.examples("mnist")[key], values[[0, 2, 3, 4]])


@pytest.mark.usefixtures("undrawn")
def test_times_have_every_round_and_the_segmentation_its_record(bench, tmp_path):
    bench.raw["timing"] = TIMING
    file = Layout(bench.root).timing(bench.config.case("main").suffix)
    measured = {"fullname": "a::b", "name": "b", "extra_info": {"rounds": 2}, "stats": {"data": [1 / 3, 0.5], "min": 0}}
    _write(file, json.dumps({"version": "5", "benchmarks": [measured]}))
    for name in ("run.json", "history.csv", "metrics.json"):
        _write(bench.root / "segment" / name, "{}")
    _publish(bench, tmp_path / "out")
    times = json.loads((tmp_path / "out" / file.relative_to(bench.root)).read_text())
    kept = {"name": "b", "extra_info": {"rounds": 2}, "stats": {"data": [0.333333333, 0.5]}}
    assert times == {"version": "5", "benchmarks": [kept]}
    assert (tmp_path / "out/segment/metrics.json").is_file()


@pytest.mark.slow
def test_tables_and_figures_come_out_of_a_snapshot_again(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "EXAMPLES", 1)
    out = tmp_path / "out"
    _publish(bench, out)
    before = {name: (out / name).read_bytes() for name in _files(out)}
    made = {name for name in before if name.startswith(("tables", "figures"))}
    assert {f"tables/mnist{end}.csv" for end in ("", "_classes", "_comparison")} <= made
    assert {f"figures/mnist_{kind}.{end}" for kind in outputs.FIGURES for end in ("pdf", "png")} <= made
    for name in made:
        (out / name).unlink()
    outputs.redraw(bench.config, out)
    assert {name: (out / name).read_bytes() for name in _files(out)} == before
    # Numbers are those of the whole runs.
    outputs.write_tables(bench.config, "mnist", bench.root, Layout(bench.root).table("mnist"))
    tables = {name for name in _files(bench.root) if name.startswith("tables/")}
    assert len(tables) == 9
    assert all((bench.root / name).read_bytes() == before[name] for name in tables)


@pytest.mark.usefixtures("undrawn")
def test_a_second_snapshot_replaces_the_first(bench, tmp_path):
    _publish(bench, tmp_path / "out")
    bench.experiment["gallery"] = []
    del bench.experiment["methods"]["stochastic_isnet"]
    bench.raw["seeds"] = [0, 1]
    bench.collect()
    found = _publish(bench, tmp_path / "out").tables["runs.csv"]
    assert set(zip(found["row"], found["seed"], strict=True)) == {
        (row, seed) for row in ("resnet", "original_isnet") for seed in (0, 1)
    }
    assert not (tmp_path / "out/gallery.npz").exists()


@pytest.mark.usefixtures("undrawn")
def test_a_study_that_was_not_run_again_stays_unless_its_settings_are_others(bench, tmp_path, caplog):
    strength = {"setting": "data.bias.strength", "values": [0.5, 1]}
    study = {"experiment": "mnist", "rows": ["original_isnet"], "seeds": [0], "changes": {"params.heatmap_weight": 0.5}}
    bench.raw["studies"] = {"marks": {**study, "vary": [strength]}}
    scores = json.loads((bench.run("original_isnet", 0) / "metrics.json").read_text())["sets"]
    for cell, value in zip(bench.config.cells("marks"), strength["values"], strict=True):
        reporting_runs.write_run(bench.run(cell.row, 0, cell.experiment), cell.row, 0, scores, {"heatmap_weight": 0.5})
        record = json.loads((bench.run(cell.row, 0, cell.experiment) / "run.json").read_text())
        record["data"]["settings"] = {"bias": {"pattern": "border_pixel", "strength": value}}
        (bench.run(cell.row, 0, cell.experiment) / "run.json").write_text(json.dumps(record))
    bench.collect("marks")
    first = _publish(bench, tmp_path / "out")
    shutil.rmtree(Layout(bench.root).collected("marks"))
    again = _publish(bench, tmp_path / "out")
    pd.testing.assert_frame_equal(first.tables["scores.csv"], again.tables["scores.csv"])
    assert set(first.data) == set(again.data) == {"mnist", "marks_0_5", "marks_1"}
    changed = bench.raw["studies"]["marks"]
    for key, value in (("params.heatmap_weight", 0.7), ("data.bias.pattern", "corner_patch")):
        changed["changes"] = {**study["changes"], key: value}
        assert set(_publish(bench, tmp_path / "out").data) == {"mnist"}
        assert "marks is left out: it was published with other settings" in caplog.text
        caplog.clear()
        changed["changes"] = study["changes"]
        bench.collect("marks")
        _publish(bench, tmp_path / "out")
        shutil.rmtree(Layout(bench.root).collected("marks"))


def test_runs_stay_with_the_ranges_that_they_were_trained_with_whatever_those_were_called():
    made = pd.DataFrame({"experiment": ["a", "b"], "row": "r", "seed": 0, "range": ["1", "2"]})
    ranges = pd.DataFrame({"range": ["1", "1", "2"], "experiment": "older", "part": [0, 1, 0]})
    gallery = {"a/images": 0, "b/images": 1}
    whole = snapshot.Snapshot({"runs.csv": made, "ranges.csv": ranges}, {}, {"a": {}, "b": {}}, gallery)
    part = publishing._part(whole, {"a"})
    assert part.tables["ranges.csv"]["range"].tolist() == ["1", "1"]
    assert part.tables["runs.csv"]["experiment"].tolist() == ["a"]
    assert (part.data, part.gallery) == ({"a": {}}, {"a/images": 0})


@pytest.mark.usefixtures("undrawn")
def test_an_experiment_that_was_not_run_again_stays_with_its_gallery_unless_it_is_another(bench, tmp_path):
    for path in bench.root.glob("mnist/*/seed*/run.json"):
        record = json.loads(path.read_text())
        record["data"]["settings"] = {}
        path.write_text(json.dumps(record))
    bench.collect()
    first = _publish(bench, tmp_path / "out")
    shutil.rmtree(Layout(bench.root).collected("mnist"))
    again = _publish(bench, tmp_path / "out")
    pd.testing.assert_frame_equal(first.tables["scores.csv"], again.tables["scores.csv"])
    assert again.gallery.keys() == first.gallery.keys() != set()
    bench.experiment["training"] = {**bench.experiment["training"], "epochs": 77}
    with pytest.raises(BenchError, match=r"collected/mnist/data\.json is missing"):
        _publish(bench, tmp_path / "out")


@pytest.mark.usefixtures("undrawn")
def test_results_are_not_published_over_themselves_nor_unless_collected(bench, tmp_path):
    with pytest.raises(BenchError, match="holds the results themselves"):
        _publish(bench, bench.root / "tables" / "..")
    bench.raw["experiments"]["other"] = bench.experiment
    with pytest.raises(BenchError, match=r"collected/other/data\.json is missing: make it with: .* collect"):
        _publish(bench, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_every_data_set_says_whether_its_images_may_be_published():
    assert {name: datasets.publishable(name, name) for name in catalog.read().data} == {
        "colored_mnist": True,
        "decoy_mnist": True,
        "images": False,
        "mnist": True,
        "phantom": True,
        "xray": frozenset({"covid_cxnet"}),
    }
    # Those that stand in.
    assert datasets.publishable("phantom", "xray") is True
    assert datasets.publishable("digits", "mnist") is True


@pytest.fixture
def hospital(bench):
    """Makes the data X-rays of given sources, image by image as stored."""

    def write(**columns):
        manifest = {"manifest": "covid/manifest.csv", "labels": ["covid19", "normal"]}
        bench.experiment["data"] = {"name": "xray", **manifest}
        for row, seed in product(LABELS, range(3)):
            record = json.loads((bench.run(row, seed) / "run.json").read_text())["data"]
            bench.change(row, seed, "run.json", data={**record, "name": "xray"})
        bench.collect()
        images = np.rint(255 * stored_heatmaps(biased=True)["iid_images"]).astype(np.uint8)
        # In another order than among the examples.
        np.save(bench.root / "data/mnist/iid.images.npy", images[::-1])
        records = pd.DataFrame({"image": "a.png", **{name: values[::-1] for name, values in columns.items()}})
        records.to_csv(bench.root / "data/mnist/iid.csv", index_label="index")
        return bench

    return write


@pytest.mark.usefixtures("undrawn")
def test_x_rays_of_other_sources_are_never_published(hospital, tmp_path):
    bench = hospital(source=["covid_cxnet", "nih", "covid_cxnet", "nih", "covid_cxnet", "nih"])
    found = _publish(bench, tmp_path / "out").examples("mnist")
    # Of labels 3, 3, 0, 7, 1, 0.
    assert found["labels"].tolist() == [3, 0, 1]
    np.testing.assert_allclose(found["images"], stored_heatmaps(biased=True)["iid_images"][[0, 2, 4]], atol=0.003)


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
def test_no_image_that_may_be_published_is_an_error(hospital, tmp_path, columns):
    bench = hospital(**columns)
    with pytest.raises(BenchError, match="must not be published but for those of covid_cxnet; set its gallery to "):
        _publish(bench, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    bench.experiment["gallery"] = []
    assert not _publish(bench, tmp_path / "out").gallery


@pytest.mark.usefixtures("undrawn")
def test_images_that_are_not_found_are_not_permitted(hospital, tmp_path):
    known = np.arange(3 * 16, dtype=np.uint8).reshape(3, 1, 4, 4)
    np.save(tmp_path / "iid.images.npy", known)
    pd.DataFrame({"source": ["covid_cxnet", "nih", "covid_cxnet"]}).to_csv(tmp_path / "iid.csv", index_label="index")
    asked = np.concatenate([known[::-1], known[:1] + 1])
    assert publishing.permitted(xray.PUBLISHABLE, tmp_path, "iid", asked).tolist() == [True, False, True, False]
    # The same image under two sources is none that may be published.
    np.save(tmp_path / "iid.images.npy", known[[0, 0, 2]])
    assert publishing.permitted(xray.PUBLISHABLE, tmp_path, "iid", known).tolist() == [False, False, True]
    (tmp_path / "iid.images.npy").unlink()
    with pytest.raises(BenchError, match="does not say where the images are from"):
        publishing.permitted(xray.PUBLISHABLE, tmp_path, "iid", known)


@pytest.mark.slow
def test_verbs(bench, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(outputs, "FIGURES", {})
    bench.raw["results"] = str(bench.root)
    text = yaml.safe_dump(bench.raw)
    _write(tmp_path / "bench.yaml", text)
    for words in (["collect", "--experiment", "mnist"], ["publish"]):
        assert cli.main([*words, "--config", str(tmp_path / "bench.yaml")]) == 0, capsys.readouterr().err
    out = Layout(bench.root).published()
    assert (out / "config.yaml").read_text() == text
    (out / "tables/mnist.md").unlink()
    assert cli.main(["redraw", "--config", str(out / "config.yaml"), "--results", str(out)]) == 0
    assert (out / "tables/mnist.md").exists()
    assert runs.source(out, "mnist") == out


def test_timing_cases_that_were_not_measured_are_left_out_by_name(bench, caplog):
    bench.raw["timing"] = {**TIMING, "cases": {"large": {"image_size": 64}}}
    assert outputs.measured_cases(bench.config, bench.root) == ["main", "large"]
    _write(Layout(bench.root).timing(bench.config.case("large").suffix), "{}")
    assert outputs.measured_cases(bench.config, bench.root) == ["large"]
    assert "timing cases that were not measured are left out: main" in caplog.text
