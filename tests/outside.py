"""The files of docs/extending.md, as a reader would save them."""

import pages

FILES = pages.saved("docs/extending.md")


def save(folder, *names):
    """Save files of the page; return their paths."""
    for name in names:
        (folder / name).write_text(FILES[name], encoding="utf-8")
    return [str(folder / name) for name in names]
