"""The committed snapshots: every table in them comes out of their own numbers, and README shows these."""

import re
import subprocess
import sys
from itertools import chain

import pages
import pandas as pd
import pytest
from reporting_runs import ROOT

from isnet_bench import config as configuration
from isnet_bench.layout import Layout
from isnet_bench.reporting import outputs, overview, runs, snapshot, studies, timing_reports

PUBLISHED = ROOT / "results" / "published"
SNAPSHOTS = sorted(path.parent for path in PUBLISHED.rglob("config.yaml"))


@pytest.fixture(params=SNAPSHOTS, ids=lambda path: path.name)
def published(request):
    return request.param


@pytest.mark.slow
def test_tables_are_those_of_the_numbers(published, tmp_path):
    cfg, there, here = configuration.load(published / "config.yaml"), Layout(published), Layout(tmp_path)
    for name in cfg.experiments:
        outputs.write_tables(cfg, name, published, here.table(name))
    for name in outputs.collected_studies(cfg, published):
        found = runs.read(cfg, name, published)
        (studies.write_choice if cfg.study(name).select else studies.write)(found, here.table(name))
    for name in outputs.drawn_overviews(cfg, published):
        overview.write(overview.read(cfg, name, published), here.table(name))
    for name in outputs.measured_cases(cfg, published):
        end = cfg.case(name).suffix
        timing_reports.write(there.timing(end), here.table(f"timing{end}"))
    committed, made = (
        {path.name for path in (folder / "tables").iterdir() if path.suffix in (".csv", ".md", ".yaml")}
        for folder in (published, tmp_path)
    )
    # Of the others only some are committed, and of comparisons no Markdown: results/published/.gitignore.
    assert committed <= made
    assert {name for name in made - committed if name.endswith(".md") and not name.endswith("_comparison.md")} == set()
    for name in committed:
        assert (tmp_path / "tables" / name).read_bytes() == (published / "tables" / name).read_bytes(), name


@pytest.mark.slow
def test_nothing_that_draws_imports_torch():
    code = (
        "import sys; from isnet_bench.reporting import collect, outputs; assert not {'torch', 'timm'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_every_run_says_what_it_was_made_with(published):
    if not snapshot.experiments(published):
        pytest.skip("it has measured times alone")
    found = snapshot.read(published)
    for name in ("runs.csv", "ranges.csv"):
        assert set(found.tables[name]["environment"]) <= set(found.environments)
        assert found.tables[name]["git_commit"].str.fullmatch("[0-9a-f]{40}").all()
    assert set(found.tables["runs.csv"]["experiment"]) == set(found.data)
    assert set(found.tables["runs.csv"]["range"].dropna()) == set(found.tables["ranges.csv"]["range"])


# README's table: row -> label, and the row that stands for it where few training images have a mask.
HEADLINE = {
    "resnet": ("Standard classifier", None),
    "background_swap": ("Background swap", "background_swap_w9"),
    "rrr": ("Right for the Right Reasons", "rrr_w1000"),
    "stochastic_isnet": ("Stochastic ISNet", "stochastic_isnet"),
    "stochastic_isnet_swap": ("Stochastic ISNet on swapped backgrounds", "stochastic_isnet_swap"),
}
FULL = ("mnist", "remedies_corner_patch", "remedies_tinted_background")
FEW = tuple(
    f"{masks}_{mark}"
    for masks in ("few_masks_40", "few_masks_by_class_10_one_of_each_class")
    for mark in ("border_pixel", "corner_patch")
)


def headline():
    """Mean and lowest accuracy on deceiving images over seeds, in per cent, and the cost of a training step."""
    scores = pd.read_csv(PUBLISHED / "scores.csv")
    scores = scores[scores["set"] == "deceiving"].groupby(["experiment", "row"])["accuracy"]
    times = pd.read_csv(PUBLISHED / "timing_studies" / "tables" / "timing_remedies.csv")
    times = times[times["operation"] == "training step"].set_index("method")["ratio_to_plain"]

    def cell(place):
        found = 100 * scores.get_group(place) if place in scores.groups else None
        return "" if found is None else f"{found.mean():.1f} ({found.min():.0f})"

    for row, (label, few) in HEADLINE.items():
        cells = [*(cell((name, row)) for name in FULL), *(cell((name, few)) for name in FEW)]
        yield " | ".join([f"| {label}", f"{times[row]:.1f} ×", *cells]) + " |"


def test_readme_has_the_numbers_and_figures_of_the_snapshot():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "\n".join(headline()) in readme
    pictures = re.findall(r"!\[[^\]]*\]\((results/published/[^)]*)\)", readme)
    assert pictures
    assert all((ROOT / picture).is_file() for picture in pictures)


def test_the_notes_have_the_whole_table():
    report = (ROOT / "docs" / "appendix_results.md").read_text(encoding="utf-8")
    assert (PUBLISHED / "tables" / "mnist.md").read_text(encoding="utf-8").strip() in report


@pytest.fixture
def files():
    """What is committed of the snapshots."""
    listed = subprocess.run(["git", "ls-files", "results/published"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is no clone")
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


def test_figures_that_are_committed_are_those_that_pages_show(files):
    found = (re.findall(r"]\((?:\.\./)?(results/published/[^)]*\.png)\)", pages.text(page)) for page in pages.PAGES)
    assert {str(file.relative_to(ROOT)) for file in files if file.suffix == ".png"} == {*chain(*found)}


def test_the_snapshots_are_small(files):
    assert len(files) <= 120
    assert sum(file.stat().st_size for file in files) <= 6e6
