"""Things that are found rather than listed: in a folder of modules, in installed packages, and in loose files.

A source that cannot be used is a sentence in the log and in the error about a name that nothing has; it stops nothing
else.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import logging
import pkgutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Generic, TypeVar

from isnet_bench.io.errors import BenchError, unknown

log = logging.getLogger(__name__)

Thing = TypeVar("Thing")


@dataclass(frozen=True)
class Source:
    """Where things may be found: a module, an entry point or a file.

    `place` names it in messages; `load` imports it, and returns a module, or what the entry point names inside one;
    `module` is that module's name, "" for a loose file; `built_in` says whether it is a part of the benchmark.
    """

    name: str
    place: str
    load: Callable[[], object]
    module: str = ""
    built_in: bool = False

    @property
    def path(self) -> Path:
        """The file, once it is loaded."""
        return Path(str(sys.modules[self.module].__file__) if self.module else self.place).resolve()


@dataclass(frozen=True)
class Registry(Generic[Thing]):
    """What was found: name to thing, name to source, and the places that cannot be used, with the reason.

    `what` says what these things are, for messages.
    """

    what: str
    things: Mapping[str, Thing]
    sources: Mapping[str, Source]
    broken: Mapping[str, str]

    def __getitem__(self, name: str) -> Thing:
        """Return a thing. BenchError, with the nearest name and all others: there is none of that name."""
        if name in self.things:
            return self.things[name]
        broken = [f"{place} cannot be used ({reason})" for place, reason in self.broken.items()]
        raise BenchError("; ".join([unknown(self.what, name, self.things), *broken]))

    def of(self, file: str, wanted: str) -> list[Thing]:
        """Return the things of a loose file. BenchError: the file cannot be used, or has none."""
        found = [thing for name, thing in self.things.items() if self.sources[name].place == file]
        if not found:
            raise BenchError(f"{file} cannot be used ({self.broken.get(file, f'it defines no {wanted}')})")
        return found


def collect(
    what: str, sources: Iterable[Source], read: Callable[[Source, object], Iterable[tuple[str, Thing]]]
) -> Registry[Thing]:
    """Load sources, and register the things that ``read(source, loaded)`` finds there; the first of a name counts."""
    things: dict[str, Thing] = {}
    places: dict[str, Source] = {}
    broken: dict[str, str] = {}
    for source in sources:
        try:
            for name, thing in read(source, source.load()):
                if name in things:
                    raise ValueError(f"its {what} {name!r} has the name of that of {places[name].place}")
                things[name], places[name] = thing, source
        # Whatever stands in a file of others, it must not stop the rest.
        except (Exception, SystemExit) as error:
            broken[source.place] = " ".join(f"{type(error).__name__}: {error}".split())
            log.warning("%s cannot be used (%s)", source.place, broken[source.place])
    return Registry(what, things, places, broken)


def folder(package: str, path: str | Path) -> Iterator[Source]:
    """Return the modules of a package of the benchmark, which lies at this path."""
    for found in pkgutil.iter_modules([str(path)], f"{package}."):
        name = found.name.rpartition(".")[2]
        yield Source(name, found.name, partial(importlib.import_module, found.name), found.name, built_in=True)


def installed(group: str) -> Iterator[Source]:
    """Return the entry points of a group, of all installed packages."""
    for point in sorted(metadata.entry_points(group=group), key=lambda point: point.name):
        yield Source(point.name, f"the entry point {point.name} = {point.value}", point.load, point.module)


def file(path: str | Path) -> Source:
    """Return a loose Python file as a source."""
    return Source(Path(path).stem, str(path), partial(_run, Path(path).resolve()))


@cache
def _run(path: Path) -> ModuleType:
    # Named by its place, so that files of one name in different folders do not meet.
    name = f"isnet_bench_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    specification = importlib.util.spec_from_file_location(name, path)
    if specification is None or not path.is_file():
        raise ValueError("there is no such Python file")
    module = importlib.util.module_from_spec(specification)
    # Dataclasses look for the module of their annotations here.
    sys.modules[name] = module
    try:
        specification.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
