"""README and docs/results.md hold the numbers that are published, and are short."""

from __future__ import annotations

import importlib.util
import re
import subprocess

import pages
import pandas as pd
import pytest

# Of papers, versions of Python, ranges of pixels, and settings that a sentence names; no result is among them.
NO_RESULTS = {"15", "291", "2024", "2401.08409", "3.11", "3.13", "0", "1", "95"}


@pytest.fixture(scope="module")
def fill():
    spec = importlib.util.spec_from_file_location("fill", pages.ROOT / "docs" / "fill.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pages_are_what_make_numbers_writes(fill):
    for path, text in fill.pages():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run `make numbers`"


def test_tables_that_pages_take_numbers_from_are_committed(fill, monkeypatch):
    asked, names = fill.table, set()

    def noted(name, snapshot="."):
        names.add((snapshot, name))
        return asked(name, snapshot)

    monkeypatch.setattr(fill, "table", noted)
    list(fill.pages())
    tables = [f"{snapshot}/tables/{name}.csv" for snapshot, name in names if name not in ("scores", "runs")]
    assert len(tables) > 5
    ignored = subprocess.run(["git", "check-ignore", *tables], cwd=fill.PUBLISHED, capture_output=True, text=True)
    assert ignored.stdout == "", "let results/published/.gitignore keep them"


@pytest.mark.parametrize("name", ["README.md", "results.md"])
def test_a_template_holds_no_number_of_a_result(fill, name):
    text = (fill.TEMPLATES / name).read_text(encoding="utf-8")
    text = re.sub(r'```.*?```|\{#.*?#\}|\{%.*?%\}|\{\{.*?\}\}|`[^`]*`|"[^"\n]*"|\]\([^)]*\)', "", text, flags=re.DOTALL)
    text = "\n".join(line for line in text.splitlines() if not line.startswith("| |") and " masks |" not in line)
    found = set(re.findall(r"(?<![\w/-])\d+(?:\.\d+)?(?![\w/])", text))
    assert found <= NO_RESULTS, "ask for results by name, see docs/fill.py"


def test_a_sentence_that_no_longer_holds_is_named(fill, monkeypatch):
    asked = fill.table

    def other(name, snapshot="."):
        found = asked(name, snapshot).copy()
        if name == "masks_needed":
            found.loc[found["method"] == "unet_swap", "p_holm"] = 0.01
        return found

    monkeypatch.setattr(fill, "table", other)
    with pytest.raises(fill.StaleError, match=r"docs/templates/README.md, line \d+: .* write what is true now"):
        list(fill.pages())


def test_numbers_are_those_of_the_tables(fill):
    # By hand from results/published/tables/mnist.md, masks_needed.md, conditions.md and few_masks.md.
    assert fill.spread("mnist", "stochastic_isnet", "iid") == "97.1 ± 0.3"
    assert fill.interval(fill.compared("masks_needed", "unet_swap", "Masks: 40, border pixel")) == "96.0 (94.7 to 97.4)"
    assert fill.resisted("few_masks_10_border_pixel", "stochastic_isnet") == 4
    told = fill.difference(fill.compared("conditions", "background_swap", "MNIST, corner patch"))
    assert told == "+0.9 points, +0.2 to +1.6, p = 0.32"
    # By hand: differences 1, 2 and 6 have the mean 3, the deviation sqrt(7) and, with t = 4.303, a reach of 6.57.
    assert fill.paired(fill.np.array([1.0, 1, 1]), fill.np.array([2.0, 3, 7])) == "+3.0 points, -3.6 to +9.6"


def test_fewest_masks_with_which_every_seed_resists(fill):
    # By hand from results/published/scores.csv.
    few = ("few_masks_10", "few_masks_40")
    found = [fill.fewest(row, "border_pixel", few) for row in ("rrr_w1000", "stochastic_isnet", "background_swap_w9")]
    assert found == ["10", "40", "–"]


def test_where_changed_predictions_go(fill, tmp_path, monkeypatch):
    # Of two images of each seed one or both change, by hand; class 1 has no mask with seed 0, class 0 none with seed 1.
    seen = [(0, 0, 0, 1), (0, 1, 1, 1), (1, 0, 1, 0), (1, 1, 0, 1)]
    rows = [
        {"experiment": "few", "row": "one", "seed": seed, "set": name, "index": index, "prediction": value}
        for seed, index, ood, deceiving in seen
        for name, value in (("ood", ood), ("deceiving", deceiving))
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / "predictions.parquet")
    masks = [
        {"experiment": "few", "row": "one", "seed": seed, "set": "deceiving", "class": label, "training_masks": number}
        for seed, kept in enumerate(([3, 0], [0, 2]))
        for label, number in enumerate(kept)
    ]
    pd.DataFrame(masks).to_parquet(tmp_path / "classes.parquet")
    monkeypatch.setattr(fill, "PUBLISHED", tmp_path)
    counts = fill.changed("few", ["one"]), fill.followed("few", ["one"]), fill.followed("few", ["one"], masks=True)
    assert counts == (3, 2, 1)


def test_how_far_a_mark_moves_a_layer(fill):
    # By hand from the mediation.csv of the run.
    place = "few_masks_by_class_10_one_of_each_class_border_pixel", "stochastic_isnet"
    assert [round(fill.shift(*place, layer), 2) for layer in (0, 1, -1)] == [1.64, 0.03, 0.02]
    with pytest.raises(fill.StaleError, match="no mediation of vit in mnist"):
        fill.shift("mnist", "vit", 0)


def test_readme_is_one_screen():
    assert len(pages.text("README.md").splitlines()) <= 90
    assert len(pages.prose("README.md").split()) <= 700


def test_what_was_found_is_short():
    assert len(pages.prose("docs/results.md").split()) <= 2500
