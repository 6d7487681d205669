"""Checks a report of Snakemake: everything is in the one file, and a browser shows it. `python check.py report.html`.

Every result has a caption and is in the file; nothing is loaded from elsewhere. In a browser, images decode, tables are
no wider than a laptop's screen beside the report's menu, and the page writes no error to the console. This part needs
Chromium; where there is none the check says that it was left out.
"""

from __future__ import annotations

import base64
import html
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
STYLE = Path(__file__).with_name("style.css")
# 1366 pixels less the menu's.
WIDTH = 1024
_PROBE = """<!DOCTYPE html><meta charset="utf-8"><body>{frames}<pre id="found"></pre><script>
window.onload = () => {{
  const found = [];
  for (const image of document.images) if (!image.naturalWidth) found.push(image.title + " does not load");
  for (const frame of document.querySelectorAll("iframe")) {{
    const page = frame.contentDocument.documentElement;
    if (page.scrollWidth > page.clientWidth) found.push(frame.title + " is " + page.scrollWidth + " pixels wide");
    if (!page.querySelector("table")) found.push(frame.title + " has no table");
  }}
  document.getElementById("found").textContent = "looked at everything; " + found.join("; ");
}};
</script>"""


def results(report: str) -> dict[str, dict[str, Any]]:
    """Return what the report shows: path of each result to its entry, with "caption" and "data_uri"."""
    start = re.search(r'<script id="results">\s*var results = ', report)
    if start is None:
        return {}
    return json.JSONDecoder().raw_decode(report, start.end())[0]


def problems(report: str) -> Iterator[str]:
    """Find what is wrong with the file itself."""
    shown = results(report)
    if not any(name.endswith(".png") for name in shown) or not any(name.endswith(".html") for name in shown):
        yield "there are no figures or no tables in it"
    for name, entry in shown.items():
        if not entry.get("caption"):
            yield f"{name} has no caption"
        if not entry.get("data_uri", "").startswith("data:"):
            yield f"{name} is not embedded"
    if STYLE.read_text(encoding="utf-8").strip() not in report:
        yield f"what is higher than the screen begins above it: give --report-stylesheet {STYLE}"
    if "system-message" in report:
        yield "a caption or the first page has a mark-up error: look for 'System Message' in it"
    for tag in re.findall(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=[\"'](?:https?:)?//[^>]*>", report):
        yield f"it loads something from elsewhere: {tag[:100]}"


def looks(path: Path, browser: str) -> Iterator[str]:
    """Find what is wrong when a browser shows the report, and each of its results."""
    dom, errors = _show(path, browser)
    yield from errors
    if "Figures" not in dom or "Tables" not in dom:
        yield "the menu does not appear"
    with tempfile.TemporaryDirectory() as folder:
        probe = Path(folder) / "probe.html"
        probe.write_text(_PROBE.format(frames="\n".join(_frames(results(path.read_text("utf-8"))))), encoding="utf-8")
        dom, errors = _show(probe, browser)
    yield from errors
    found = re.search(r"looked at everything; ([^<]*)", dom)
    yield from ["the results do not appear"] if found is None else filter(None, found.group(1).split("; "))


def _frames(shown: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for name, entry in shown.items():
        title, uri = html.escape(name), entry["data_uri"]
        if name.endswith(".png"):
            yield f'<img title="{title}" src="{uri}">'
        elif name.endswith(".html"):
            text = base64.b64decode(uri.partition("base64,")[2]).decode("utf-8")
            yield f'<iframe title="{title}" width="{WIDTH}" srcdoc="{html.escape(text)}"></iframe>'


def _show(path: Path, browser: str) -> tuple[str, list[str]]:
    """The page after its scripts have run, and the errors that they wrote to the console."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--virtual-time-budget=8000"]
    run = subprocess.run(
        [browser, *options, "--window-size=1366,768", "--dump-dom", path.resolve().as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    lines = [line for line in run.stderr.splitlines() if "CONSOLE" in line]
    errors = [line for line in lines if "ERROR:CONSOLE" in line or "Uncaught" in line]
    return run.stdout, [f"the console says: {line.partition('] ')[2]}" for line in errors]


def main(path: Path) -> int:
    """Check a report; return 1 if anything is wrong, which is told on stderr."""
    found = list(problems(path.read_text(encoding="utf-8")))
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.stderr.write(f"none of {', '.join(BROWSERS)} is installed: how {path} looks was not checked\n")
    else:
        found += looks(path, browser)
    for problem in found:
        sys.stderr.write(f"error: {path}: {problem}\n")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
