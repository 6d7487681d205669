"""The workflow with X-rays and without: what the default plans, what it refuses, and what begins first."""

import re

import pytest
import workplaces
from workplaces import calls, planned, snakemake

workplace = workplaces.workplace


@pytest.mark.slow
@pytest.mark.parametrize(
    ("there", "segmented"),
    [([], False), (["covid/lungmasks"], True), (["covid/lungmasks", "covid/manifest.csv"], True)],
)
def test_the_default_segments_lungs_where_there_are_x_rays(workplace, there, segmented):
    root = workplace / "data"
    for name in there:
        (root / name).mkdir(parents=True)
    if not there:
        # Masks that are left from X-rays of before are asked for as little as others.
        (workplace / "other/segment/masks").mkdir(parents=True)
        (workplace / "other/segment/masks/a.png").touch()
    asked = ["covid", "covid_marks", "--config", "results=other"]
    run = snakemake(workplace, "--dry-run", *asked, ISNET_BENCH_DATA=root)
    assert run.returncode == 0, run.stdout
    assert ("segment" in planned(run.stdout)) == segmented
    inputs = re.findall(r"^rule prepare:\n(?:    input: (.*)\n)?    output: (.*)$", run.stdout, flags=re.MULTILINE)
    masks = "other/segment/masks" if segmented else ""
    assert sorted(inputs) == [(masks, f"other/data/{name}") for name in ("covid", "covid_marks")]


@pytest.mark.slow
def test_half_of_the_x_rays_is_an_error_and_no_phantom(workplace):
    (workplace / "data/covid").mkdir(parents=True)
    target = ["results/data/covid", "results/segment/metrics.json"]
    run = snakemake(workplace, *target, ISNET_BENCH_DATA="data", CHECK_REALLY="segment")
    assert run.returncode != 0
    assert "lungmasks/manifest.csv" in run.stdout
    assert len(re.findall(r"^error: .*", run.stdout, flags=re.MULTILINE)) == 1
    assert not [call for call in calls(workplace) if call.startswith("prepare")]


@pytest.mark.slow
def test_the_longest_trainings_begin_first(workplace):
    run = snakemake(workplace, "--dry-run", "mnist", "covid", ISNET_BENCH_DATA="nowhere")
    assert run.returncode == 0, run.stdout
    found = re.findall(
        r"^rule (\w+):\n(?:    .*\n)*?    wildcards: (.*)\n(?:    .*\n)*?    priority: (\d+)$",
        run.stdout,
        flags=re.MULTILINE,
    )
    priority = {(rule, *re.findall(r"=(\w+)", wildcards)): int(number) for rule, wildcards, number in found}
    trainings = {key: number for key, number in priority.items() if key[0] == "train"}
    original, plain, digits = (
        trainings["train", *run]
        for run in (("mnist", "original_isnet", "0"), ("covid", "resnet", "0"), ("mnist", "resnet", "0"))
    )
    assert original > plain > digits
    assert min(priority["prepare", "mnist"], priority["range_classifier", "covid", "0"]) > max(trainings.values())
