"""Tables in all of their forms: tidy csv for programs; Markdown, LaTeX and a page of HTML for people."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from isnet_bench.io.files import write_text

_LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"$<$",
        "±": r"$\pm$",
        "†": r"$\dagger$",
        "‡": r"$\ddagger$",
        "×": r"$\times$",
    }
)
_PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font: 14px/1.4 sans-serif; margin: 1em; max-width: 70em; }}
table {{ border-collapse: collapse; margin: 1em 0; border-top: 2px solid; border-bottom: 2px solid; }}
th {{ border-bottom: 1px solid; vertical-align: bottom; }}
th, td {{ padding: 0.15em 0.6em; text-align: right; font-variant-numeric: tabular-nums; }}
td {{ white-space: nowrap; }}
</style>
{body}
</html>
"""
_BOOKTABS = "% needs \\usepackage{booktabs}\n"


class Part(NamedTuple):
    """A table for people.

    Attributes
    ----------
    shown : DataFrame
        Of str.
    bold : ndarray or None
        Which cells are bold: bool, the shape of `shown`.
    text_columns : int
        How many columns, from the left, are not numbers.
    before, after : list of str
        Paragraphs above and below it.
    title, label, what : str
        Where there are several: its heading, the end of its LaTeX label, and what its LaTeX caption begins with.
    """

    shown: pd.DataFrame
    bold: np.ndarray | None = None
    text_columns: int = 1
    before: Sequence[str] = ()
    after: Sequence[str] = ()
    title: str = ""
    label: str = ""
    what: str = ""


def write(out: Path, table: pd.DataFrame, heading: str, caption: str, parts: Sequence[Part]) -> None:
    """Write ``out.csv``, ``out.md``, ``out.tex`` (booktabs; a table for each part) and ``out.html``.

    `table` is the csv, `parts` are the tables for people, `heading` is the title of the page, and `caption` is above
    all parts. The name of `out` is the label of the LaTeX table.
    """
    texts = {
        "csv": table.to_csv(index=False, float_format="%.6g"),
        "md": "\n\n".join([caption, *(_markdown(part) for part in parts)]) + "\n",
        "tex": _BOOKTABS + "\n".join(_latex(part, caption, out.name) for part in parts),
        "html": _page(heading, caption, parts),
    }
    for kind, text in texts.items():
        write_text(out.parent / f"{out.name}.{kind}", text)


def cell(mean: float, std: float, scale: float) -> str:
    """Return a mean with its standard deviation, as a table for people has it; a single seed has no ±."""
    if pd.isna(mean):
        return "none"
    return f"{scale * mean:.1f}" + ("" if pd.isna(std) else f" ± {scale * std:.1f}")


def _page(heading: str, caption: str, parts: Sequence[Part]) -> str:
    """Return a page of HTML, readable at the width of a laptop beside the report's menu; it needs no other file."""
    body = [_paragraph(caption)]
    for part in parts:
        body += [
            *[_paragraph(part.title, "h2")] * bool(part.title),
            *map(_paragraph, part.before),
            _html(part),
            *map(_paragraph, part.after),
        ]
    return _PAGE.format(title=html.escape(heading), body="\n".join(body))


def _markdown(part: Part) -> str:
    alignment = ["left"] * part.text_columns + ["right"] * (part.shown.shape[1] - part.text_columns)
    marked = part.shown if part.bold is None else part.shown.mask(part.bold, "**" + part.shown + "**")
    text = marked.to_markdown(index=False, colalign=alignment, disable_numparse=True)
    return "\n\n".join([*[f"## {part.title}"] * bool(part.title), *part.before, text, *part.after])


def _latex(part: Part, caption: str, name: str) -> str:
    escaped = part.shown.rename(columns=_escape).map(_escape)
    if part.bold is not None:
        escaped = escaped.mask(part.bold, r"\textbf{" + escaped + "}")
    return escaped.to_latex(
        index=False,
        escape=False,
        column_format="l" * part.text_columns + "r" * (part.shown.shape[1] - part.text_columns),
        caption=_escape(" ".join(filter(None, [part.what, caption, *part.before, *part.after]))),
        label="tab:" + "_".join(filter(None, [name, part.label])),
        position="tb",
    )


def _html(part: Part) -> str:
    # The name makes the same table the same text each time.
    styled = Styler(part.shown, uuid=part.label or "table", cell_ids=False).hide(axis="index")
    styled = styled.format(escape="html").format_index(escape="html", axis=1)
    if part.bold is not None:
        styled = styled.apply(lambda _: np.where(part.bold, "font-weight: bold", ""), axis=None)
    left = [{"selector": "", "props": "text-align: left; white-space: normal"}]
    return styled.set_table_styles(dict.fromkeys(part.shown.columns[: part.text_columns], left)).to_html()


def _paragraph(text: str, tag: str = "p") -> str:
    return f"<{tag}>{html.escape(text)}</{tag}>"


def _escape(text: str) -> str:
    return text.translate(_LATEX)
