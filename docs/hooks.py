"""What MkDocs does besides: README.md is the first page, and what lies outside of docs/ is brought in."""

from __future__ import annotations

import html
import re
import sys
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))
import generated

ROOT = Path(__file__).resolve().parents[1]
# Files outside of docs/ that pages link to -> their place in the site.
_OUTSIDE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "config/README.md": "config.md",
}
_PUBLISHED = ROOT / "results" / "published"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and pictures that do not lie in docs/."""
    pages = {place: (ROOT / path).read_text(encoding="utf-8") for path, place in _OUTSIDE.items()}
    for place, text in {**pages, **generated.pages()}.items():
        files.append(File.generated(config, place, content=text))
    for picture in sorted(_PUBLISHED.rglob("figures/*.png")):
        place = picture.relative_to(_PUBLISHED).as_posix()
        files.append(File.generated(config, f"published/{place}", abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links between files into links of the site, and the name of a block's file into the title of the block."""
    markdown = re.sub(r"(?m)^```(\w+) ([\w.]+)$", r'```\1 title="\2"', markdown)
    markdown = re.sub(r"\]\((?:\.\./)?results/published/([^)]*\.png)\)", r"](published/\1)", markdown)
    source = page.file.src_uri
    if source in ("index.md", "changelog.md", "contributing.md"):
        markdown = markdown.replace("](docs/", "](")
    if source == "config.md":
        markdown = markdown.replace("](../docs/", "](")
    for path, place in _OUTSIDE.items():
        markdown = markdown.replace(f"](../{path}", f"]({place}").replace(f"]({path}", f"]({place}")
    return markdown


def on_page_content(content: str, **_: Any) -> str:
    """Write formulas as MathML, which browsers show without a script; let a tap show a figure at its full size."""
    content = re.sub(r'<img [^>]*src="([^"]*published/[^"]*)"[^>]*>', r'<a href="\1">\g<0></a>', content)
    return re.sub(r"(?s)\\(\(|\[)(.*?)\\[)\]](?=</(?:span|div)>)", _mathml, content)


def _mathml(found: re.Match[str]) -> str:
    return convert(html.unescape(found[2]), display="inline" if found[1] == "(" else "block")
