"""A rehearsal: every row of a configuration, at its size, on very few images."""

import copy
import json
import os
from pathlib import Path

import pytest
import torch

from isnet_bench import cli
from isnet_bench import config as configuration

CONFIGS = Path(__file__).resolve().parents[1] / "config"
PAPER = CONFIGS / "paper.yaml"


@pytest.fixture
def anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ISNET_BENCH_DATA", str(tmp_path / "nothing"))


def test_it_has_each_row_of_the_paper_once_and_leaves_what_it_is_of_alone():
    paper = configuration.load(PAPER)
    small = configuration.rehearsal(paper)
    assert small.seeds == (0,)
    assert {name: len(one.rows) for name, one in small.experiments.items()} == {
        "mnist": len(paper.experiments["mnist"].rows),
        "covid": len(paper.experiments["covid"].rows),
        "covid_resnet18": len(paper.experiments["covid_resnet18"].rows),
        # Those of covid, but for the marks, which need one row to be seen.
        "covid_marks": 1,
    }
    for name, experiment in small.experiments.items():
        original = paper.experiments[name]
        assert experiment.backbone == original.backbone
        assert experiment.data.settings["image_size"] == original.data.settings["image_size"]
        for row, entry in experiment.rows.items():
            asked = original.rows[row]
            assert (entry.method, entry.params) == (asked.method, asked.params)
            shortened = {"epochs", "batch_size", "val_batch_size"}
            assert entry.training.model_dump(exclude=shortened) == asked.training.model_dump(exclude=shortened)
            assert (entry.training.epochs, entry.training.batch_size <= 5) == (1, True)


def test_the_command_says_of_every_job_whether_it_works(tiny_given, anywhere, tmp_path, monkeypatch, capsys):
    given = copy.deepcopy(tiny_given)
    given["experiments"]["tiny"]["methods"] = {"resnet": {}, "rrr": {"params": {"weight": 10.0}}}
    file = tmp_path / "it.yaml"
    file.write_text(json.dumps(given))
    assert cli.main(["check-run", "--config", str(file)]) == 0
    told = capsys.readouterr().out.splitlines()
    jobs = [
        *(f"tiny, {row}: {verb}" for row in given["experiments"]["tiny"]["methods"] for verb in ("train", "evaluate"))
    ]
    assert told == [f"holds  {job}" for job in [*jobs, "tiny: collect", "tiny: tables"]]
    assert not (tmp_path / "results").exists()

    from baselines.rrr import RightForTheRightReasons

    def broken(self, images, masks, labels):
        return torch.zeros(2) + torch.zeros(3)

    monkeypatch.setattr(RightForTheRightReasons, "training_loss", broken)
    assert cli.main(["check-run", "--config", str(file)]) == cli.FAILED
    told = capsys.readouterr()
    assert "FAILS  tiny, rrr: train: RuntimeError: The size of tensor a (2) must match" in told.out
    assert "holds  tiny, resnet: train" in told.out
    assert "error: 4 of the checks above failed" in told.err


def test_methods_that_need_groups_are_left_out(tiny_given):
    rows = {"one": {"resnet": {}, "worst": {"method": "group_dro"}}, "other": {"jtt": {}}}
    experiments = {name: {**tiny_given["experiments"]["tiny"], "methods": methods} for name, methods in rows.items()}
    small = configuration.rehearsal(configuration.check({**tiny_given, "experiments": experiments}, "test"))
    assert {name: list(one.rows) for name, one in small.experiments.items()} == {"one": ["resnet"]}


def test_every_row_on_butterflies_is_there_at_its_size():
    asked = configuration.load(CONFIGS / "butterflies.yaml")
    small = configuration.rehearsal(asked)
    # The two experiments have the same rows.
    assert {name: len(one.rows) for name, one in small.experiments.items()} == {
        "butterflies_marks": len(asked.experiments["butterflies_marks"].rows),
        "butterflies_places": 1,
    }
    for name, experiment in small.experiments.items():
        assert experiment.data.settings == asked.experiments[name].data.settings
        assert experiment.training.batch_size == 2


PHOTOGRAPHS = {
    "marks": {"labels": ["bee", "moth", "wasp"], "marks": {"pattern": "corner_patch", "size": 4}, "color": "grey"},
    "places": {"places": {"pictures": 3}},
    "plain": {"mask": {"foreground": [1]}, "frame": "squash"},
}


def test_made_up_photographs_stand_in_for_those_of_a_manifest(tiny_given, anywhere, tmp_path, capsys):
    experiments = {
        name: {
            **tiny_given["experiments"]["tiny"],
            "data": {"name": "images", "manifest": "mine/them.csv", "image_size": 32, **data},
            # Rows that were there before are left out.
            "methods": {f"resnet_{number}": {"method": "resnet", "training": {"learning_rate": 0.01 * (1 + number)}}},
        }
        for number, (name, data) in enumerate(PHOTOGRAPHS.items())
    }
    file = tmp_path / "it.yaml"
    file.write_text(json.dumps({**tiny_given, "experiments": experiments}))
    assert cli.main(["check-run", "--config", str(file)]) == 0
    jobs = [
        f"holds  {name}{f', resnet_{number}' if verb in ('train', 'evaluate') else ''}: {verb}"
        for number, name in enumerate(PHOTOGRAPHS)
        for verb in ("train", "evaluate", "collect", "tables")
    ]
    assert capsys.readouterr().out.splitlines() == jobs
    assert os.environ["ISNET_BENCH_DATA"] == str(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_without_x_rays_the_papers_data_are_refused_in_one_sentence(anywhere, capsys):
    assert cli.main(["prepare", "--config", str(PAPER), "--experiment", "covid"]) == cli.FAILED
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith("error: there is no manifest ")
    assert "xray/manifest.csv; write one, or let ISNET_BENCH_DATA name the folder above it" in told
    assert cli.main(["segment", "--config", str(PAPER)]) == cli.FAILED
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith("error: ")
    assert "xray/" in told


@pytest.mark.parametrize("of", [1, 2, 6])
def test_parts_share_out_all_rows(of):
    paper = configuration.load(PAPER)
    whole = configuration.rehearsal(paper)
    parts = [configuration.rehearsal(paper, part, of) for part in range(1, of + 1)]
    shared = [(name, row) for part in parts for name, one in part.experiments.items() for row in one.rows]
    assert sorted(shared) == sorted((name, row) for name, one in whole.experiments.items() for row in one.rows)
    sizes = [sum(len(one.rows) for one in part.experiments.values()) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    assert all(one.rows for part in parts for one in part.experiments.values())


@pytest.mark.parametrize("share", ["0/2", "3/2", "1", "a/b"])
def test_a_share_that_is_none_is_refused(share, capsys):
    with pytest.raises(SystemExit):
        cli.main(["check-run", "--config", str(PAPER), "--share", share])
    assert "is not a share: it must be 1/2, 2/2, 1/3, ..." in capsys.readouterr().err
