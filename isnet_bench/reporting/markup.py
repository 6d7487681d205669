"""Tables for people, as Markdown, as LaTeX, and as pages of HTML."""

from __future__ import annotations

import html
from collections.abc import Iterable

import numpy as np
import pandas as pd

__all__ = ["BOOKTABS", "html_table", "latex", "markdown", "page", "paragraph"]

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
th.text, td.text {{ text-align: left; white-space: normal; }}
</style>
{body}
</html>
"""
BOOKTABS = "% needs \\usepackage{booktabs}\n"


def markdown(shown: pd.DataFrame, bold: np.ndarray | None = None, text_columns: int = 1) -> str:
    """Return a table of text as Markdown.

    Parameters
    ----------
    shown : DataFrame
        Of str.
    bold : ndarray, optional
        Which cells are bold: bool, the shape of `shown`.
    text_columns : int
        How many columns, from the left, are not numbers.
    """
    alignment = ["left"] * text_columns + ["right"] * (shown.shape[1] - text_columns)
    marked = shown if bold is None else shown.mask(bold, "**" + shown + "**")
    return marked.to_markdown(index=False, colalign=alignment, disable_numparse=True)


def latex(shown: pd.DataFrame, text: str, name: str, text_columns: int = 1, bold: np.ndarray | None = None) -> str:
    """Return a table as LaTeX (booktabs), its caption being `text`, its label ``tab:name``; all else as `markdown`."""
    escaped = shown.rename(columns=_escape).map(_escape)
    if bold is not None:
        escaped = escaped.mask(bold, r"\textbf{" + escaped + "}")
    return escaped.to_latex(
        index=False,
        escape=False,
        column_format="l" * text_columns + "r" * (shown.shape[1] - text_columns),
        caption=_escape(text),
        label=f"tab:{name}",
        position="tb",
    )


def html_table(shown: pd.DataFrame, bold: np.ndarray | None = None, text_columns: int = 1) -> str:
    """Return a table of text as HTML; parameters as of `markdown`."""
    bold = np.zeros(shown.shape, dtype=bool) if bold is None else bold
    classes = [' class="text"'] * text_columns + [""] * (shown.shape[1] - text_columns)
    head = "".join(f"<th{kind}>{html.escape(name)}</th>" for name, kind in zip(shown.columns, classes, strict=True))
    body = "\n".join(
        "<tr>" + "".join(map(_html_cell, cells, marks, classes)) + "</tr>"
        for cells, marks in zip(shown.to_numpy(), bold, strict=True)
    )
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def _html_cell(text: str, bold: bool, kind: str) -> str:
    shown = html.escape(text)
    return f"<td{kind}><b>{shown}</b></td>" if bold else f"<td{kind}>{shown}</td>"


def paragraph(text: str, tag: str = "p") -> str:
    """Return text as an HTML paragraph, or another element."""
    return f"<{tag}>{html.escape(text)}</{tag}>"


def page(title: str, parts: Iterable[str]) -> str:
    """Return a page of HTML, readable at the width of a laptop beside the report's menu; it needs no other file."""
    return _PAGE.format(title=html.escape(title), body="\n".join(parts))


def _escape(text: str) -> str:
    return text.translate(_LATEX)
