"""What the report of Snakemake shows: the pages with tables, and the check of the whole file."""

import base64
import importlib.util
import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import reporting_runs
from reporting_runs import LABELS, SETS

from isnet_bench.errors import BenchError
from isnet_bench.reporting import comparison, markup, tables, timing_page

ROOT = Path(__file__).resolve().parents[1]
config, results = reporting_runs.config, reporting_runs.results


class _Cells(HTMLParser):
    """Rows of all tables of a page, bold cells between stars."""

    def __init__(self, page):
        super().__init__()
        self.rows, self.cell = [], None
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self.cell = tag
        elif tag == "b":
            self.rows[-1][-1] += "*"

    def handle_data(self, data):
        if self.cell:
            self.rows[-1][-1] += data

    def handle_endtag(self, tag):
        if tag == "b":
            self.rows[-1][-1] += "*"
        elif tag == self.cell:
            self.cell = None


def test_html_is_escaped_and_bold_where_asked():
    shown = pd.DataFrame({"Method": ["a < b", "c"], "Score & more": ["1.0", "2.0"]})
    page = markup.page("t", [markup.paragraph("p < 0.05"), markup.html_table(shown, np.array([[0, 0], [0, 1]], bool))])
    assert _Cells(page).rows == [["Method", "Score & more"], ["a < b", "1.0"], ["c", "*2.0*"]]
    assert "<p>p &lt; 0.05</p>" in page
    assert "src=" not in page
    assert "href=" not in page


def test_pages_show_what_markdown_shows(config, results):
    config["experiments"]["mnist"]["methods"]["resnet"]["method"] = "masked_input"
    tables.write(config, "mnist", results, results / "t")
    comparison.write(config, "mnist", results, results / "c")
    for name, number in (("t", 1), ("c", len(SETS))):
        page = (results / f"{name}.html").read_text(encoding="utf-8")
        lines = [line for line in (results / f"{name}.md").read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
        cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if not line.startswith("|:")]
        found = [[cell.strip().replace("*", "**") for cell in row] for row in _Cells(page).rows]
        assert found == cells
        assert len(found) == number * (1 + len(LABELS))
        assert page.count("An oracle") == number
        assert "Data: MNIST." in page


@pytest.fixture
def measured(tmp_path):
    """A timing study of two methods, in pytest-benchmark's form; the second was not timed with 50 classes."""
    info = {"device": "cpu", "threads": 2, "backbone": "resnet_small", "image_size": 28, "batch_size": 16}
    info |= {"channels": 1, "measures": "training step", "sweep": 0, "flop": 10**9}
    entries = [
        {
            "extra_info": {**info, "method": row, "label": label, "classes": classes, "peak_memory_bytes": memory},
            "stats": {"data": [seconds, 3 * seconds]},
        }
        for row, label, classes, seconds, memory in (
            ("resnet", "Plain", 2, 0.001, 10**6),
            ("original_isnet", "Original", 2, 0.004, 4 * 10**6),
            ("resnet", "Plain", 50, 0.002, 10**6),
        )
    ]
    path = tmp_path / "training_step.json"
    path.write_text(json.dumps({"benchmarks": entries}))
    return path


def test_timing_page_has_a_column_for_each_number_of_classes(measured, tmp_path):
    timing_page.write(measured, tmp_path / "timing.html")
    page = (tmp_path / "timing.html").read_text(encoding="utf-8")
    head = ["Method", "2 classes", "50 classes"]
    assert _Cells(page).rows == [
        head, ["Plain", "2.0", "4.0"], ["Original", "8.0", ""],
        head, ["Plain", "1.00", "1.00"], ["Original", "4.00", ""],
        head, ["Plain", "1.0", "1.0"], ["Original", "4.0", ""],
    ]  # fmt: skip
    assert "resnet_small" in page
    with pytest.raises(BenchError, match=r"none\.json"):
        timing_page.write(tmp_path / "none.json", tmp_path / "timing.html")


@pytest.fixture(scope="module")
def check():
    spec = importlib.util.spec_from_file_location("report_check", ROOT / "workflow" / "report" / "check.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _report(head="", **entries):
    whole = {"a.png": _entry(b"\x89PNG"), "b.html": _entry(b"<table></table>"), **entries}
    return f'<html>{head}<script id="results">\n    var results = {json.dumps(whole)};\n</script></html>'


def _entry(content, **changed):
    return {"caption": "What it is.", "data_uri": "data:x;base64," + base64.b64encode(content).decode(), **changed}


def test_a_whole_report_has_no_problems(check):
    assert list(check.problems(_report())) == []
    assert set(check.results(_report())) == {"a.png", "b.html"}


@pytest.mark.parametrize(
    ("report", "said"),
    [
        ("<html></html>", "no figures or no tables"),
        (_report(**{"c.png": _entry(b"", caption="")}), "c.png has no caption"),
        (_report(**{"c.png": _entry(b"", data_uri="c.png")}), "c.png is not embedded"),
        (_report('<script src="https://example.org/x.js"></script>'), "loads something from elsewhere: <script"),
        (_report("<link rel='stylesheet' href='//example.org/x.css'>"), "loads something from elsewhere: <link"),
    ],
)
def test_what_is_wrong_with_a_report_is_told(check, report, said):
    (problem,) = check.problems(report)
    assert said in problem


def test_a_missing_browser_is_told_and_no_failure(check, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(check.shutil, "which", lambda name: None)
    (tmp_path / "report.html").write_text(_report(), encoding="utf-8")
    assert check.main(tmp_path / "report.html") == 0
    assert "was not checked" in capsys.readouterr().err
    (tmp_path / "report.html").write_text("<html></html>", encoding="utf-8")
    assert check.main(tmp_path / "report.html") == 1
    assert "error: " in capsys.readouterr().err
