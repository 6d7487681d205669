"""Docstrings are reStructuredText, and the site is Markdown: roles and formulas are rewritten."""

from __future__ import annotations

import re
import textwrap
from typing import Any

from griffe import Extension, Object

import isnet

_PUBLIC = {f"isnet.{name}" for name in isnet.__all__}


class RoleExtension(Extension):
    """Rewrites the docstring of each object."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite one docstring."""
        if obj.docstring:
            obj.docstring.value = markdown(obj.docstring.value)


def markdown(text: str) -> str:
    """Return a docstring without roles and directives."""
    # griffe gives the default of the first of several names to all of them.
    text = re.sub(r"^( *)(\w+(?:, \w+)+) : (.+\n(?:\1 +.*\n?)+)", _each, text, flags=re.MULTILINE)
    text = re.sub(r":(?:class|func|meth|mod):`~?([^`]+)`", lambda found: _link(found[1]), text)
    text = re.sub(r":math:`([^`]+)`", lambda found: f"${' '.join(found[1].split())}$", text)
    return re.sub(r"^( *)\.\. math:: *(.*(?:\n(?:\1 +\S.*))*)", _formula, text, flags=re.MULTILINE)


def _link(name: str) -> str:
    return f"[`{name}`][{name}]" if name in _PUBLIC else f"`{name}`"


def _formula(found: re.Match[str]) -> str:
    return textwrap.indent(f"\n$$\n{' '.join(found[2].split())}\n$$\n", found[1])


def _each(found: re.Match[str]) -> str:
    return "".join(f"{found[1]}{name} : {found[3]}" for name in found[2].split(", "))
