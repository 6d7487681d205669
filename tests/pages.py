"""README and the pages of docs/: their sentences, their blocks of code, and the commands that a reader is to type."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in (
        ROOT / "README.md",
        ROOT / "CHANGELOG.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "config" / "README.md",
        *(ROOT / "docs").rglob("*.md"),
    )
    if path.is_file() and "templates" not in path.parts
)
_FENCE = re.compile(r"^( *)```([^\n]*)\n(.*?)^\1```$", flags=re.DOTALL | re.MULTILINE)
# What a line begins with that is a command, after settings of the environment and what a notebook's prompt would hold.
_COMMAND = re.compile(r"(?:[A-Z_]+=\S+ )*(?:make|snakemake|python|pip|conda|source|export|git|torchrun)\b[^#\n]*")
# Code, comments, pictures and formulas between double dollars.
_NO_PROSE = re.compile(r"```.*?```|<!--.*?-->|!\[[^\]]*\]\([^)]*\)|\$\$.*?\$\$", flags=re.DOTALL)
# A row of a table, a heading, or a line of indented code; an item of a list inside a list is indented, too.
_NO_PROSE_LINE = re.compile(r" *\||#| {4}(?![-*] | )")
_END_OF_SENTENCE = re.compile(r"\n\s*\n|\n *(?:[-*]|\d+\.) |(?<=[.!?:])[*\")]*\s+")


def text(page: str) -> str:
    """The text of a page, which is named by its path in the repository."""
    return (ROOT / page).read_text(encoding="utf-8")


def prose(page: str) -> str:
    """The words of a page, without code, formulas, tables, pictures, headings and comments; of a link its text."""
    lines = [line for line in _NO_PROSE.sub("", text(page)).splitlines() if not _NO_PROSE_LINE.match(line)]
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", "\n".join(lines))


def sentences(words: str) -> list[str]:
    """Sentences of prose, with one word for each piece of code; an item of a list and a paragraph end one, too."""
    words = re.sub(r"\$[^$]*\$", "formula", re.sub(r"`[^`]*`", "code", words))
    return [" ".join(part.split()) for part in _END_OF_SENTENCE.split(words) if part.strip()]


def blocks(page: str, info: str) -> list[str]:
    """The fenced blocks of a page whose first line says just this, such as "python"."""
    return [body for _, told, body in _FENCE.findall(text(page)) if told == info]


def saved(page: str) -> dict[str, str]:
    """The blocks that a reader is to save: name of the file, which stands behind the language -> its content."""
    return {told.split()[1]: body for _, told, body in _FENCE.findall(text(page)) if len(told.split()) == 2}


def commands(page: str) -> Iterator[str]:
    """Each command of a page: lines of bash blocks, and what looks like one in other blocks and between backticks."""
    for block in blocks(page, "bash"):
        yield from (line.partition(" # ")[0].strip() for line in block.replace("\\\n", " ").splitlines() if line)
    rest = _FENCE.sub(lambda found: found[3] if not found[2] else "", text(page)).replace("\\\n", " ")
    for line in rest.splitlines():
        for quoted in (*re.findall(r"`([^`]+)`", line), line.strip().lstrip("$ ") if "`" not in line else ""):
            if _COMMAND.fullmatch(quoted.partition("  #")[0].strip()) and " " in quoted:
                yield quoted.partition("  #")[0].strip()
