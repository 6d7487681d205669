"""The files of docs/extending.md, as a reader would save them."""

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs" / "extending.md"
FILES = dict(re.findall(r"```\w+ (\S+)\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL))


def save(folder, *names):
    """Save files of the page; return their paths."""
    for name in names:
        (folder / name).write_text(FILES[name], encoding="utf-8")
    return [str(folder / name) for name in names]
