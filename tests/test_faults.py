"""Processes killed at random moments and damaged files: afterwards the same numbers or a sentence, never other ones.

Each round starts from the files of finished runs. A job is killed, a file is damaged, or both; then the jobs are done
again, from the one that was killed, or from any.
"""

import contextlib
import io
import json
import multiprocessing
import os
import shutil
import signal
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from isnet_bench import cli
from isnet_bench.evaluation import evaluate  # noqa: F401
from isnet_bench.io.errors import BenchError
from isnet_bench.layout import Layout
from isnet_bench.reporting import collect, outputs, snapshot  # noqa: F401
from isnet_bench.training import ranges, train  # noqa: F401

# What the jobs need is imported above, once; a fork of this process does them.
FORK = multiprocessing.get_context("fork")
ROUNDS, PARTS, SEED = 200, 4, 19
ROWS, SEEDS = ("resnet", "isnet"), (0, 1)
RUN = ["--experiment", "tiny", "--row", "isnet", "--seed", "1"]
JOBS = {
    "prepare": ["prepare", "--experiment", "tiny"],
    "range": ["range", *RUN],
    "train": ["train", *RUN],
    "evaluate": ["evaluate", *RUN],
    "collect": ["collect", "--experiment", "tiny"],
    "tables": ["tables", "--experiment", "tiny"],
    "figures": ["figures", "--experiment", "tiny", "--kind", "accuracy"],
}
NAMES = list(JOBS)
# What a job writes, below the results, and so is not there before it is done for the first time.
WRITES = {
    "prepare": "data",
    "range": "tiny/range/classifier/seed1",
    "train": "tiny/isnet/seed1",
    "evaluate": "tiny/isnet/seed1/metrics.json",
    "collect": "collected",
    "tables": "tables",
    "figures": "figures",
}
OF_THE_CLOCK = "seconds|started|git|^environment$|^range$"


def configuration(**changes):
    data = {"name": "mnist", "train_images": 60, "val_images": 10, "test_images": 20, "download": False}
    recipe = {"epochs": 3, "batch_size": 20, "learning_rate": 2e-3, "epoch": "classification", **changes}
    rows = {"resnet": {}, "isnet": {"method": "stochastic_isnet"}}
    data["seed"] = len(changes)
    tiny = {"data": data, "backbone": {"name": "resnet_small"}, "training": recipe, "methods": rows}
    return {"seeds": list(SEEDS), "device": "cpu", "experiments": {"tiny": tiny}}


def do(folder, jobs, config="mine.json", seconds=None, last_change=None):
    """Do jobs in a process of their own, and kill it after so many seconds, or at one of its changes of files.

    Return the sentence of the first job that fails, "" if none does, and the number of changes.
    """
    read, write = os.pipe()
    worker = FORK.Process(target=_work, args=(folder, jobs, config, write, last_change))
    worker.start()
    os.close(write)
    worker.join(seconds)
    worker.kill()
    worker.join()
    with os.fdopen(read, encoding="utf-8") as said:
        return json.loads(said.read() or '["killed", 0]')


def _work(folder, jobs, config, out, last_change):
    os.chdir(folder)
    changes = 0

    def count(event, given):
        nonlocal changes
        written = event == "open" and given[2] & os.O_WRONLY and not str(given[0]).startswith("/")
        if written or event in ("os.rename", "os.remove"):
            changes += 1
            if changes == last_change:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    failed, said = False, io.StringIO()
    for job in jobs:
        try:
            with contextlib.redirect_stderr(said):
                failed = cli.main([*job, "--config", config])
        except BaseException as error:
            failed = said.write(f"error: not a sentence but {type(error).__name__}: {error}")
        if failed:
            break
    sentence = said.getvalue().rpartition("error: ")[2].strip()
    os.write(out, json.dumps([sentence if failed else "", changes]).encode())
    os._exit(0)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Two folders of finished runs that differ in data and recipe; the seconds and changes of the first one's jobs."""
    folders = [tmp_path_factory.mktemp(name) for name in ("first", "second")]
    whole = [
        JOBS["prepare"],
        *(
            [verb, "--experiment", "tiny", "--row", row, "--seed", str(seed)]
            for row in ROWS
            for seed in SEEDS
            for verb in ("train", "evaluate")
        ),
        *(JOBS[name] for name in ("collect", "tables", "figures")),
    ]
    given = [configuration(), configuration(learning_rate=1e-3)]
    took = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISNET_BENCH_DATA", "nothing")
        for place, folder in enumerate(folders):
            for name, config in zip(("mine.json", "other.json"), given, strict=True):
                (folder / name).write_text(json.dumps(config))
            assert do(folder, whole, ("mine.json", "other.json")[place])[0] == ""
        trial = shutil.copytree(folders[0], tmp_path_factory.mktemp("trial") / "it")
        for name, job in JOBS.items():
            begun = time.monotonic()
            sentence, changes = do(trial, [job])
            assert sentence == ""
            took[name] = (time.monotonic() - begun, changes)
        assert different(trial, folders[0], drawn=True) == []
        yield *folders, took


def numbers(folder, drawn):
    """All numbers of some results that do not depend on the clock, by name; those of the tables where `drawn`."""
    layout = Layout(folder / "results")
    kept = snapshot.read(layout.collected("tiny"))
    # What measured the ranges is in no table, and may have been deleted.
    tables = {name: table[table["row"] != "range_classifier"] for name, table in kept.tables.items() if "row" in table}
    tables = {name: table.reset_index(drop=True) for name, table in tables.items()}
    for name in ("tiny", "tiny_classes", "tiny_comparison") if drawn else ():
        tables[name] = pd.read_csv(layout.table(name, "csv"))
    found = {name: table.loc[:, ~table.columns.str.contains(OF_THE_CLOCK)] for name, table in tables.items()}
    return found | dict(kept.gallery) | load_file(layout.run("tiny", "isnet", 1) / "weights.safetensors")


def different(folder, other, drawn):
    """What has not the same numbers in two folders."""
    here, there = numbers(folder, drawn), numbers(other, drawn)
    assert here.keys() == there.keys()
    return [name for name in here if not _same(here[name], there[name])]


def _same(one, other):
    if isinstance(one, pd.DataFrame):
        return one.equals(other)
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else np.array_equal(one, other)


def damage(folder, second, rng):
    """Damage one file of the results; return what was done, the paths that may be named, and who reads it at first."""
    files = sorted(path for path in (folder / "results").rglob("*") if path.is_file())
    path = files[rng.integers(len(files))]
    content, how = path.read_bytes(), rng.choice(["truncate", "flip", "delete", "swap"])
    named = [path]
    if how == "delete":
        path.unlink()
    elif how == "truncate":
        path.write_bytes(content[: rng.integers(len(content) or 1)])
    elif how == "flip" and content:
        place = rng.integers(len(content))
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << rng.integers(8)]) + content[place + 1 :])
    elif how == "swap":
        alike = [one for one in files if one.suffix == path.suffix and one != path and one.parts[-3] == path.parts[-3]]
        foreign = second / path.relative_to(folder)
        if rng.random() < 0.5 and foreign.is_file():
            path.write_bytes(foreign.read_bytes())
        elif alike:
            other = alike[rng.integers(len(alike))]
            path.write_bytes(other.read_bytes())
            other.write_bytes(content)
            named.append(other)
    return f"{how} {path.relative_to(folder)}", named


def play(folder, finished, rng):
    """Play one round in a copy of finished runs; return what was done, and what is wrong with how it ended."""
    first, second, took = finished
    kind, job = rng.choice(["kill", "damage", "both"]), NAMES[rng.integers(len(NAMES))]
    told, named = [], []
    if kind != "damage":
        seconds, changes = took[job]
        moment = {"seconds": rng.uniform(0, 1.2 * seconds)}
        if changes and rng.random() < 0.5:
            moment = {"last_change": int(rng.integers(1, changes + 1))}
        if rng.random() < 0.5:
            left = folder / "results" / WRITES[job]
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        config = "other.json" if rng.random() < 0.3 else "mine.json"
        do(folder, [JOBS[job]], config, **moment)
        told.append(f"{job} with {config} killed at {moment}")
    if kind != "kill":
        what, named = damage(folder, second, rng)
        told.append(what)
    again = NAMES[NAMES.index(job) :]
    drawn = job in NAMES[-3:] or any({"tables", "figures"} & set(path.parts) for path in named)
    again = [one for one in again if drawn or one not in ("tables", "figures")]
    told.append(f"then {', '.join(again)}")
    return "; ".join(told), _verdict(folder, first, do(folder, [JOBS[one] for one in again])[0], named, drawn)


def _verdict(folder, first, sentence, named, drawn):
    if not sentence:
        try:
            return [f"other numbers: {name}" for name in different(folder, first, drawn)]
        except BenchError as error:
            # A file that these jobs did not read, and the next one will.
            sentence = str(error)
        except (OSError, AssertionError) as error:
            return [f"no sentence, and yet {error}"]
    shown = [str(path.relative_to(folder)) for path in named]
    shown += [str(path.parent.relative_to(folder)) for path in named]
    if "\n" in sentence or not any(one in sentence for one in shown):
        return [f"names none of {shown}: {sentence}"]
    return []


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_the_same_numbers_or_a_sentence(finished, tmp_path, monkeypatch, part):
    monkeypatch.setenv("ISNET_BENCH_DATA", "nothing")
    wrong = {}
    for number in range(part, int(os.environ.get("FAULT_ROUNDS", ROUNDS)), PARTS):
        folder = shutil.copytree(finished[0], tmp_path / str(number))
        told, problems = play(folder, finished, np.random.default_rng([SEED, number]))
        if problems:
            wrong[number] = (told, problems)
        else:
            shutil.rmtree(folder)
    assert not wrong, "\n".join(f"round {number}: {told}\n  {problems}" for number, (told, problems) in wrong.items())
