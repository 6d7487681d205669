"""What is to be known of methods and data sets without importing them, which would import torch.

``catalog.json`` beside this file tells of those that are built in; ``make schema`` writes it. What installed packages
and plug-ins add, and all where any file that the built-in ones come from has changed since, is asked for in a process
of its own.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from isnet_bench.io import code, inputs
from isnet_bench.io.errors import BenchError

FILE = Path(__file__).with_name("catalog.json")
GROUPS = {"methods": "isnet_bench.methods", "data": "isnet_bench.data"}
"""Kind -> the entry points by which an installed package offers some of it."""
_ROOT = Path(__file__).resolve().parents[2]
_SOURCES = ("baselines/**/*.py", "isnet_bench/data/**/*.py", "isnet_bench/methods/**/*.py", "isnet/variants.py")


@dataclass(frozen=True)
class Card:
    """A method or a data set.

    Attributes
    ----------
    name, label : str
        In the configuration, and in tables and figures.
    schema : dict
        JSON Schema of its hyper-parameters or settings.
    family : {"baseline", "isnet"}
        Of a method.
    oracle : bool
        Whether it sees the true masks of test images.
    groups : bool
        Whether it is defined only where every group has training images.
    measured, fields : tuple of str
        Hyper-parameters that are measured where they are "auto", and those that the explanation depends on whose
        relevance is measured then.
    source : tuple of str
        The Python files that its results come from, relative to the folder of the packages.
    reads : tuple of str
        The files that a data set comes from: patterns below the data root, ``{KEY}`` being a setting.
    """

    name: str
    schema: dict[str, Any]
    label: str = ""
    family: str = "baseline"
    oracle: bool = False
    groups: bool = False
    measured: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    source: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()

    @property
    def code(self) -> str:
        """Digest of the code that its results come from, of what those files import, too."""
        return code.digest(self.source)

    def files(self, settings: Mapping[str, Any]) -> str:
        """Digest of the files that a data set comes from, given the settings that differ from the defaults."""
        keys = self.schema.get("properties", {})
        values = {key: glob.escape(str(self.value(settings, key) or "")) for key in keys}
        return inputs.digest(pattern.format_map(values) for pattern in self.reads)

    def value(self, params: Mapping[str, Any], name: str) -> Any:
        """Return a hyper-parameter, given those that differ from the defaults."""
        return params.get(name, self.schema["properties"][name].get("default"))

    def range_id(self, params: Mapping[str, Any]) -> str | None:
        """Return the id of the relevance range that a row is trained with; None where it needs none."""
        if not any(self.value(params, name) == "auto" for name in self.measured):
            return None
        explained = {name: self.value(params, name) for name in self.fields}
        return f"{self.name}_{hashlib.sha256(json.dumps(explained, sort_keys=True).encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class Catalog:
    """All methods and data sets by name, and why some file tells of none: file -> sentence."""

    methods: Mapping[str, Card]
    data: Mapping[str, Card]
    broken: Mapping[str, str] = field(default_factory=dict)


def read(plugins: Sequence[str] = ()) -> Catalog:
    """Return the catalogue of what is built in, installed, and in loose files, whose paths are `plugins`.

    Raises BenchError if the process that asks for what is not built in fails.
    """
    content = json.loads(FILE.read_text(encoding="utf-8"))
    outside = plugins or any(metadata.entry_points(group=group) for group in GROUPS.values())
    if outside or content["sources"] != sources():
        versions = tuple((path, _digest([Path(path)])) for path in plugins)
        content = _ask(versions)
    kinds = {kind: {card["name"]: _card(card) for card in content[kind]} for kind in GROUPS}
    return Catalog(**kinds, broken=content.get("broken", {}))


def sources() -> str:
    """Return the SHA-256 digest of all files that built-in methods and data sets, and their settings, come from."""
    return _digest(sorted(path for pattern in _SOURCES for path in _ROOT.glob(pattern)))


def _digest(paths: Sequence[Path]) -> str:
    there = [path for path in paths if path.is_file()]
    return hashlib.sha256(b"".join(f"{path.name}\n".encode() + path.read_bytes() for path in there)).hexdigest()


def _card(content: dict[str, Any]) -> Card:
    return Card(**{key: tuple(value) if isinstance(value, list) else value for key, value in content.items()})


@cache
def _ask(plugins: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    command = [sys.executable, "-m", "isnet_bench", "catalog", "--plugins", *(path for path, _ in plugins)]
    # The code that asks is the code that answers, wherever the process starts.
    path = os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    answer = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    try:
        return json.loads(answer.stdout)
    except ValueError:
        last = (answer.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise BenchError(f"the methods and data sets cannot be listed: {last}") from None
