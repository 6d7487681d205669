"""Tables for people, as Markdown and as LaTeX."""

from __future__ import annotations

import numpy as np
import pandas as pd

__all__ = ["latex", "markdown"]

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


def _escape(text: str) -> str:
    return text.translate(_LATEX)
