"""What the report of Snakemake shows: the pages with tables, and the check of the whole file."""

import base64
import importlib.util
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import reporting_runs
from reporting_runs import LABELS, SETS

from isnet_bench.reporting import markup, tables

ROOT = Path(__file__).resolve().parents[1]
bench = reporting_runs.bench


class _Cells(HTMLParser):
    """Rows of all tables of a page."""

    def __init__(self, page):
        super().__init__()
        self.rows, self.cell = [], False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.cell = tag in ("td", "th")
        if tag == "tr":
            self.rows.append([])
        elif self.cell:
            self.rows[-1].append("")

    def handle_data(self, data):
        if self.cell:
            self.rows[-1][-1] += data

    def handle_endtag(self, tag):
        self.cell = False


def test_html_is_escaped_and_bold_where_asked(tmp_path):
    shown = pd.DataFrame({"Method": ["a < b", "c"], "Score & more": ["1.0", "2.0"]})
    part = markup.Part(shown, np.array([[0, 0], [0, 1]], bool), after=["p < 0.05"])
    markup.write(tmp_path / "t", shown, "t", "caption", [part])
    page = (tmp_path / "t.html").read_text()
    assert _Cells(page).rows == [["Method", "Score & more"], ["a < b", "1.0"], ["c", "2.0"]]
    (bold,) = re.findall(r"#(\w+) {\s*font-weight: bold", page)
    assert re.search(rf'id="{bold}"[^>]*>2\.0<', page)
    assert "<p>p &lt; 0.05</p>" in page
    assert "src=" not in page
    assert "href=" not in page


def test_pages_show_what_markdown_shows(bench):
    bench.experiment["methods"]["resnet"]["method"] = "masked_input"
    tables.write(bench.read(), bench.root / "t")
    for name, number in (("t", 1), ("t_comparison", len(SETS))):
        page = (bench.root / f"{name}.html").read_text(encoding="utf-8")
        text = (bench.root / f"{name}.md").read_text(encoding="utf-8").replace("*", "")
        lines = [line for line in text.splitlines() if line[:1] == "|"]
        cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if not line.startswith("|:")]
        assert [[cell.strip() for cell in row] for row in _Cells(page).rows] == cells
        assert len(cells) == number * (1 + len(LABELS))
        assert page.count("An oracle") == number
        assert "Data: MNIST." in page


@pytest.fixture(scope="module")
def check():
    spec = importlib.util.spec_from_file_location("report_check", ROOT / "workflow" / "report" / "check.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


STYLE = f"<style>{(ROOT / 'workflow/report/style.css').read_text(encoding='utf-8')}</style>"


def _report(head="", style=STYLE, **entries):
    whole = {"a.png": _entry(b"\x89PNG"), "b.html": _entry(b"<table></table>"), **entries}
    return f'<html>{style}{head}<script id="results">\n    var results = {json.dumps(whole)};\n</script></html>'


def _entry(content, **changed):
    return {"caption": "What it is.", "data_uri": "data:x;base64," + base64.b64encode(content).decode(), **changed}


def test_a_whole_report_has_no_problems(check):
    assert list(check.problems(_report())) == []
    assert set(check.results(_report())) == {"a.png", "b.html"}


@pytest.mark.parametrize(
    ("report", "said"),
    [
        (f"<html>{STYLE}</html>", "no figures or no tables"),
        (_report(style="<style></style>"), "begins above it: give --report-stylesheet"),
        (_report(**{"c.png": _entry(b"", caption="")}), "c.png has no caption"),
        (_report(**{"c.png": _entry(b"", data_uri="c.png")}), "c.png is not embedded"),
        (_report('<div class="system-message">'), "mark-up error"),
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


def test_captions_ask_for_wildcards_that_there_are():
    known = {"experiment", "row", "seed", "study", "overview", "kind", "case", "quantity"}
    for caption in (ROOT / "workflow" / "report").glob("*.rst"):
        asked = set(re.findall(r"snakemake\.wildcards\.(\w+)", caption.read_text(encoding="utf-8")))
        assert asked <= known, caption.name
