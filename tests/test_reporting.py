"""Tables and figures from run folders that the tests write themselves."""

import json
import re

import matplotlib.image
import numpy as np
import pandas as pd
import pytest

from isnet_bench.config import MethodEntry
from isnet_bench.errors import BenchError
from isnet_bench.reporting import collect, figures, style, tables

LABELS = {
    "stochastic_isnet_f8": "Stochastic ISNet, 1/8 of heatmaps",
    "stochastic_isnet": "Stochastic ISNet",
    "resnet": "ResNet (plain)",
    "original_isnet": "Original ISNet",
}
ACCURACY = {
    "resnet": (1.0, 0.348, 0.021),
    "original_isnet": (0.968, 0.966, 0.965),
    "stochastic_isnet": (0.967, 0.967, 0.967),
    "stochastic_isnet_f8": (0.95, 0.93, 0.91),
}
SETS = ("iid", "ood", "deceiving")


@pytest.fixture
def config():
    entries = {row: {"label": label} for row, label in LABELS.items()}
    entries["stochastic_isnet_f8"]["method"] = "stochastic_isnet"
    experiment = {"title": "MNIST with a synthetic background bias", "methods": entries}
    return {"seeds": [0, 1, 2], "experiments": {"mnist": experiment}}


@pytest.fixture
def results(tmp_path, config):
    """Run folders of four methods and three seeds; accuracies are mean - 0.01, mean, mean + 0.01, <= 1."""
    for row in LABELS:
        for seed in config["seeds"]:
            _write_run(tmp_path / "mnist" / row / f"seed{seed}", row, seed)
    return tmp_path


def _write_run(folder, row, seed):
    folder.mkdir(parents=True)
    share = 0.62 if row == "resnet" else 0.04 + 0.01 * seed
    sets = {
        name: {
            **_scores(min(1.0, mean + 0.01 * (seed - 1))),
            "background_relevance": share,
            "background_area": 0.71,
            "images": 2000,
        }
        for name, mean in zip(SETS, ACCURACY[row], strict=True)
    }
    metrics = {
        "data": "MNIST",
        "stand_in": False,
        "method": row,
        "label": LABELS[row],
        "seed": seed,
        "explainer": "LRP-epsilon with z^B input rule",
        "sets": sets,
        "prediction_changes": 0.98 if row == "resnet" else 0.01 * seed,
        "train_seconds": 20.0 + 2 * seed,
    }
    (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    run = {"data": {"classes": [str(digit) for digit in range(10)]}}
    (folder / "run.json").write_text(json.dumps(run), encoding="utf-8")
    np.savez(folder / "heatmaps.npz", **_heatmaps(biased=row == "resnet"))


def _scores(accuracy):
    """Scores that differ from each other; 100 images of each digit, all mistakes being the next digit."""
    right = round(100 * accuracy)
    confusion = right * np.eye(10, dtype=int) + (100 - right) * np.roll(np.eye(10, dtype=int), 1, axis=1)
    one = {"precision": accuracy, "recall": right / 100, "specificity": None, "support": 100}
    return {
        "accuracy": accuracy,
        "macro_f1": accuracy / 2,
        "balanced_accuracy": accuracy / 4,
        "auc": None,
        "per_class": [one] * 10,
        "confusion": confusion.tolist(),
    }


def _heatmaps(biased):
    """Discs on black with a white border pixel; relevance on the disc, and on the mark if biased."""
    rows, columns = np.mgrid[:28, :28]
    masks = np.stack([(np.hypot(rows - 13, columns - 10 - k) < 6 + k % 3) for k in range(6)])[:, None]
    images = masks * np.float32(0.8)
    labels = np.array([3, 3, 0, 7, 1, 0])
    images[np.arange(6), 0, 2 * labels, 0] = 1
    noise = np.random.default_rng(0).normal(size=images.shape)
    relevance = masks * (0.3 + noise)
    relevance[np.arange(6), 0, 2 * labels, 0] = 300 if biased else 0
    stored = {"images": images, "masks": masks, "relevance": relevance, "labels": labels}
    return {f"iid_{name}": value.astype("int64" if name == "labels" else "float32") for name, value in stored.items()}


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were drawn, in place of their files."""
    figs = []
    monkeypatch.setattr(style, "save", lambda fig, prefix: figs.append(fig))
    return figs


def _change(results, row, seed, **entries):
    path = results / "mnist" / row / f"seed{seed}" / "metrics.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}), encoding="utf-8")
    return path


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
        _change(results, "original_isnet", seed, explainer="Gradient × Input")
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
        "ResNet (plain)", "99.7 ± 0.6", "34.8 ± 1.0", "2.1 ± 1.0", "62.0 ± 0.0",
    ]  # fmt: skip
    assert len(body) == len(LABELS)


def test_latex_uses_booktabs_and_escapes_labels(config, results):
    config["experiments"]["mnist"]["methods"]["resnet"]["label"] = "50 % of A&B_1"
    _table(config, results)
    text = (results / "tables" / "mnist.tex").read_text(encoding="utf-8")
    for rule in ("toprule", "midrule", "bottomrule"):
        assert text.count(f"\\{rule}") == 1
    assert r"50 \% of A\&B\_1 & 99.7 $\pm$ 0.6 &" in text
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
    _change(results, "resnet", 0, sets=sets)
    stored = _heatmaps(biased=True)
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
            _change(results, row, seed, data=title, stand_in=True)
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
        _change(results, "resnet", seed, sets={"near": first["ood"], "far": first["iid"]})
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
    _change(results, "stochastic_isnet", 1, data="digits", stand_in=True)
    with pytest.raises(BenchError, match=r"stochastic_isnet.seed1.*'digits'.*'MNIST'"):
        collect.runs(config, "mnist", results)


def test_runs_with_other_test_sets_share_no_table(config, results):
    path = results / "mnist" / "resnet" / "seed0" / "metrics.json"
    _change(results, "stochastic_isnet", 1, sets={"iid": json.loads(path.read_text())["sets"]["iid"]})
    with pytest.raises(BenchError, match="test sets iid where the first run has iid, ood, deceiving"):
        collect.runs(config, "mnist", results)


def test_accuracy_figure_shows_every_seed_mean_and_spread(config, results, drawn):
    figures.accuracy(config, "mnist", results, results / "a")
    panels = drawn[0].axes
    assert [panel.get_title() for panel in panels] == list(SETS)
    assert [tick.get_text().replace("\n", " ") for tick in panels[0].get_yticklabels()] == [
        LABELS[row] for row in ("resnet", "original_isnet", "stochastic_isnet", "stochastic_isnet_f8")
    ]
    seeds = [line.get_xdata() for line in panels[1].lines if line.get_marker() == "."]
    np.testing.assert_allclose(seeds[0], [33.8, 34.8, 35.8])
    assert len(seeds) == len(LABELS)
    _, _, (whisker,) = panels[1].containers[0]
    np.testing.assert_allclose(whisker.get_segments()[0][:, 0], [33.8, 35.8])
    assert "34.8" in [text.get_text() for text in panels[1].texts]


def test_heatmaps_share_one_symmetric_scale_with_white_at_zero(config, results, drawn):
    figures.heatmaps(config, "mnist", results, results / "h")
    columns = 2 + len(LABELS)
    panels = np.array(drawn[0].axes[:-1]).reshape(-1, columns)
    assert len(panels) == 4
    maps = [panel.images[0] for panel in panels[:, 2:].flat]
    limits = {image.get_clim() for image in maps}
    assert len(limits) == 1
    low, high = limits.pop()
    assert low == -high
    assert maps[0].cmap(maps[0].norm(0.0)) == (1.0, 1.0, 1.0, 1.0)
    assert abs(maps[0].get_array()).sum() == pytest.approx(100, rel=1e-5)
    stored = _heatmaps(biased=True)
    expected = 100 - 100 * abs(stored["iid_relevance"][0] * stored["iid_masks"][0]).sum() / (
        abs(stored["iid_relevance"][0]).sum()
    )
    assert panels[0, 2].get_xlabel() == f"{expected:.0f} %"
    assert panels[0, 3].get_xlabel() == "0 %"


def test_heatmaps_show_images_of_different_classes(config, results, drawn):
    figures.heatmaps(config, "mnist", results, results / "h")
    stored = _heatmaps(biased=True)["iid_images"]
    shown = [panel.images[0].get_array() for panel in drawn[0].axes[: 4 * 6 : 6]]
    for image, index in zip(shown, (0, 2, 3, 4), strict=True):
        np.testing.assert_array_equal(image, stored[index, 0])


def test_heatmaps_of_different_images_are_refused(config, results):
    path = results / "mnist" / "stochastic_isnet" / "seed0" / "heatmaps.npz"
    stored = _heatmaps(biased=False)
    np.savez(path, **{**stored, "iid_images": stored["iid_images"][::-1]})
    with pytest.raises(BenchError, match="stochastic_isnet and resnet stored heatmaps of different images"):
        figures.heatmaps(config, "mnist", results, results / "h")


@pytest.mark.parametrize("content", [None, b"no zip"])
def test_unreadable_heatmaps_are_an_error(config, results, content):
    path = results / "mnist" / "original_isnet" / "seed0" / "heatmaps.npz"
    path.unlink()
    if content:
        path.write_bytes(content)
    with pytest.raises(BenchError, match=r"heatmaps\.npz.*evaluate .*--method original_isnet --seed 0"):
        figures.heatmaps(config, "mnist", results, results / "h")


def test_figures_have_column_width_embedded_fonts_and_no_date(config, results):
    prefix = results / "figures" / "mnist_accuracy"
    figures.accuracy(config, "mnist", results, prefix)
    pdf = prefix.with_suffix(".pdf").read_bytes()
    width = float(re.search(rb"/MediaBox \[ 0 0 ([0-9.]+)", pdf).group(1))
    assert width == pytest.approx(88 / 25.4 * 72, abs=0.01)
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf
    assert b"Date" not in pdf
    picture = matplotlib.image.imread(prefix.with_suffix(".png"))
    assert picture.shape[1] == round(88 / 25.4 * 300)
    assert sorted(path.name for path in prefix.parent.iterdir()) == [
        "mnist_accuracy.pdf",
        "mnist_accuracy.png",
    ]
    again = results / "again" / "mnist_accuracy"
    figures.accuracy(config, "mnist", results, again)
    for kind in (".pdf", ".png"):
        assert again.with_suffix(kind).read_bytes() == prefix.with_suffix(kind).read_bytes()


def test_every_method_has_its_own_look():
    looks = style.method_looks()
    assert next(iter(looks)) == "resnet"
    assert list(looks)[-1] == "stochastic_isnet"
    assert len({(look.color, look.marker) for look in looks.values()}) == len(looks)
    named = [look for name, look in looks.items() if name == "resnet" or name.endswith("isnet")]
    others = [look for look in looks.values() if look not in named]
    assert len(named) == len({look.color for look in named}) == len({look.marker for look in named}) == 5
    assert not {look.color for look in named} & {look.color for look in others}
    assert not {look.marker for look in named} & {look.marker for look in others}


def test_a_new_method_takes_a_spare_look_and_moves_no_isnet(monkeypatch):
    before = style.method_looks()
    monkeypatch.setattr(style.methods, "names", lambda: [*before, "zz_new"])
    after = style.method_looks()
    assert {name: after[name] for name in before} == before
    assert after["zz_new"] not in before.values()


def test_variants_follow_their_method_with_its_colour():
    rows = {"f8": "stochastic_isnet", "stochastic_isnet": "stochastic_isnet", "resnet": "resnet"}
    looks = style.row_looks([MethodEntry(row, method, row, {}, {}) for row, method in rows.items()])
    assert list(looks) == ["resnet", "stochastic_isnet", "f8"]
    assert looks["f8"].color == looks["stochastic_isnet"].color
    assert looks["f8"].face == "white"
    assert looks["f8"].line != looks["stochastic_isnet"].line
