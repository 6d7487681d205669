"""Every command that README and the pages of docs/ tell a reader to type can be understood by what it is typed to."""

from __future__ import annotations

import functools
import json
import re
import shlex
from pathlib import Path

import pages
import pytest
import yaml
from snakemake.cli import get_argument_parser, parse_config
from snakemake.utils import update_config

from isnet_bench import cli
from isnet_bench import config as configuration

ROOT = pages.ROOT
COMMANDS = [
    pytest.param(page, command, id=f"{page}: {command}") for page in pages.PAGES for command in pages.commands(page)
]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
RULES = {
    name
    for path in (ROOT / "workflow").rglob("*")
    if path.suffix == ".smk" or path.name == "Snakefile"
    for name in re.findall(r"^rule (\w+):", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
}
# Options of plug-ins of Snakemake that are not installed here, so that nothing can say whether they are right.
FOREIGN = re.compile(r"--executor kubernetes|--default-storage-\S+ \S+")
# What a reader puts something of his own in place of.
PLACEHOLDER = re.compile(r"[A-Z][A-Z_]*(\.\w+)?|.*[<{…].*")


def test_there_are_commands_of_each_kind():
    heads = {command.split()[0] for _, command in (param.values for param in COMMANDS)}
    assert {"make", "snakemake", "python"} <= heads
    assert len(COMMANDS) > 60


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_a_command_is_understood(page, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, body in pages.saved(page).items():
        (tmp_path / name).write_text(body, encoding="utf-8")
    words = [word for word in shlex.split(FOREIGN.sub("", command)) if not re.fullmatch(r"[A-Z_]+=\S+", word)]
    match words:
        case ["make", *targets]:
            assert set(targets) <= TARGETS
        case ["snakemake", *rest]:
            _check_snakemake(rest, tmp_path)
        case ["python", "-m", "isnet_bench", *rest]:
            _check_verb(rest, tmp_path)
        case [head, *_]:
            assert head in ("source", "export", "pip", "conda", "git", "torchrun", "python"), f"unknown: {command}"


def _check_verb(words, folder):
    parser = cli.parser()
    (verbs,) = [action.choices for action in parser._actions if action.dest == "verb"]
    assert words[0] in verbs or words[0] == "VERB"
    if len(words) == 1 or words[-1] == "--help":
        return
    args = parser.parse_args([word.rstrip(",;") for word in words])
    path = _configuration(getattr(args, "config", None), folder)
    if path is None:
        return
    found = _read(path)
    for kind, known in (("experiment", found.experiment), ("study", found.study), ("overview", found.overview)):
        name = getattr(args, kind, None)
        if name and not PLACEHOLDER.fullmatch(name) and not name.startswith("STUDY"):
            known(name)


def _check_snakemake(words, folder):
    args = get_argument_parser().parse_args(words)
    named = args.configfile or ["config/config.yaml"]
    path = _configuration(str(named[0]), folder)
    if path is None:
        return
    changes = parse_config(args.config) if args.config else {}
    found = _read(path, json.dumps(changes))
    known = RULES | {*found.experiments, *found.studies, *found.overviews}
    for target in args.targets:
        assert target in known or "/" in target or PLACEHOLDER.fullmatch(target), target


def _configuration(name, folder):
    """The file that a page names: in the repository, or as the page has it; None for the reader's own."""
    if name is None or PLACEHOLDER.fullmatch(Path(name).name):
        return None
    path = ROOT / name if (ROOT / name).is_file() else folder / Path(name).name
    assert path.is_file(), f"{name} is neither in the repository nor on the page"
    return path


@functools.cache
def _read(path, changes="{}"):
    """The configuration of a file, with what a command changes in it."""
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    update_config(raw, json.loads(changes))
    return configuration.check(raw, path.name, strict=False)
