"""Published collections of photographs, in small: from their files to the tables, by the verbs of the command line."""

import json

import numpy as np
import pandas as pd
import pytest
from photograph_layouts import birds_on_places, save
from published_layouts import table

from isnet_bench import cli
from isnet_bench.layout import Layout

ROWS = {"resnet": {}, "stochastic_isnet": {"params": {"c1": 1.0, "c2": 10.0}}}


def pets(folder):
    """Cats and dogs with trimaps; the border counts as pet."""
    rng = np.random.default_rng(0)
    for split, number in (("trainval", 24), ("test", 8)):
        lines = []
        for index in range(number):
            species = 1 + index % 2
            name = f"{('Bombay', 'pug')[species - 1]}_{split}{index}"
            trimap = np.full((40, 36), 2)
            trimap[8:32, 8:28] = 3
            trimap[10:30, 10:26] = 1
            image = rng.integers(0, 120, (40, 36, 3))
            image[10:30, 10:26] += 60 * species
            save(image, folder / f"images/{name}.jpg")
            save(trimap, folder / f"annotations/trimaps/{name}.png")
            lines.append(f"{name} {species} {species} 1")
        table(folder / f"annotations/{split}.txt", "# Image CLASS-ID SPECIES BREED ID", *lines)


CASES = {
    "waterbirds": (birds_on_places, ["--val-share", "0", "--test-iid-share", "0.25"], "worst_group", ("iid", "ood")),
    "oxford_pets": (pets, ["--test-iid-share", "0"], "classification", ("iid",)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_from_the_files_of_a_collection_to_its_tables(name, tmp_path, monkeypatch):
    layout, options, epoch, sets = CASES[name]
    monkeypatch.setenv("ISNET_BENCH_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    layout(tmp_path / name)
    build = ["manifest", "--collection", name, "--folder", str(tmp_path / name), "--out", str(tmp_path / "them.csv")]
    assert cli.main([*build, "--split", "own", *options]) == 0
    experiment = {
        "data": {"name": "images", "manifest": "them.csv", "image_size": 32},
        "backbone": {"name": "resnet_small"},
        "training": {"epochs": 1, "batch_size": 6, "learning_rate": 1e-3, "epoch": epoch},
        "methods": ROWS,
    }
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"seeds": [0], "device": "cpu", "experiments": {name: experiment}}))
    asked = ["--config", str(config), "--experiment", name]
    assert cli.main(["prepare", *asked]) == 0
    for row in ROWS:
        for verb in ("train", "evaluate"):
            assert cli.main([verb, *asked, "--row", row, "--seed", "0"]) == 0
    for verb in ("collect", "tables"):
        assert cli.main([verb, *asked]) == 0
    results = Layout("results")
    data = json.loads((results.data(name) / "data.json").read_text())
    assert data["masks"]["train"] == {"given": data["splits"]["train"]}
    found = pd.read_csv(results.table(name, "csv")).set_index("method")
    assert list(found.index) == list(ROWS)
    for row in ROWS:
        metrics = json.loads((results.run(name, row, 0) / "metrics.json").read_text())["sets"]
        for test_set in sets:
            assert found.loc[row, f"{test_set}_accuracy_mean"] == pytest.approx(metrics[test_set]["accuracy"], abs=1e-4)
        relevance = found.loc[row, "background_relevance_mean"]
        assert relevance == pytest.approx(metrics["iid"]["background_relevance"], abs=1e-4)
    worst = [column for column in found if "worst_group" in column]
    assert bool(worst) == (name == "waterbirds")
    for column in (column for column in worst if column.endswith("_mean")):
        test_set = column.partition("_")[0]
        for row in ROWS:
            groups = json.loads((results.run(name, row, 0) / "metrics.json").read_text())["sets"][test_set]["per_group"]
            # Of the few iid images, not all groups have any.
            assert len(groups) == (4 if test_set == "ood" else 2)
            lowest = min(group["accuracy"] for group in groups)
            assert found.loc[row, column] == pytest.approx(lowest, abs=1e-4)
