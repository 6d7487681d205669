"""The committed snapshots: every table in them comes out of their own numbers, and README shows these."""

import re
import subprocess
import sys

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
    assert committed == made
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


def test_readme_has_the_table_and_figures_of_the_snapshot():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert (PUBLISHED / "tables" / "mnist.md").read_text(encoding="utf-8").strip() in readme
    pictures = re.findall(r"!\[[^\]]*\]\((results/published/[^)]*)\)", readme)
    assert len(pictures) == 4
    assert all((ROOT / picture).is_file() for picture in pictures)


def test_the_snapshots_are_small():
    listed = subprocess.run(["git", "ls-files", "results/published"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is no clone")
    files = [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]
    assert len(files) <= 120
    assert sum(file.stat().st_size for file in files) <= 6e6
