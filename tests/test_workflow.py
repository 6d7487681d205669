"""The Snakefile: what it plans for each configuration, what a second call does, what a change runs again."""

import os
import re
import shlex
import shutil
import subprocess

import pytest
import workplaces
import yaml
from workplaces import ROOT, calls, commands, edit, planned, snakemake

RULES = {
    "prepare",
    "range_classifier",
    "relevance_range",
    "train",
    "evaluate",
    "collect",
    "tables",
    "figures",
    "idea",
    "time",
    "timing",
}
ON_GPU = {"segment", "range_classifier", "relevance_range", "train", "evaluate", "time"}
ON_DEMAND = {"segment", "mediation", "collect_study", "study", "choice", "overview"}
TARGETS = {"default", "all", "bench", "studies"}
BLOCK = {"method": "original_isnet", "params": {"propagation": "block"}}
workplace = workplaces.workplace


def few(config):
    """Leave one experiment with two methods."""
    for key in set(config) - {"seeds", "device", "results", "experiments"}:
        del config[key]
    config["experiments"]["mnist"]["methods"] = {"resnet": {}, "ham": {}}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["config", "smoke", "paper"])
def test_dry_run_plans_every_rule(workplace, name):
    # The default configuration and the default profile are found without being named.
    named = ["--configfile", f"config/{name}.yaml"] if name != "config" else []
    run = snakemake(workplace, "--dry-run", *named, ISNET_BENCH_DATA="nowhere")
    assert run.returncode == 0, run.stdout
    assert "profiles/default" in run.stdout.splitlines()[0]
    config = yaml.safe_load((ROOT / "config" / f"{name}.yaml").read_text())
    trainings = sum(len(e.get("seeds", config["seeds"])) * len(e["methods"]) for e in config["experiments"].values())
    counts = planned(run.stdout)
    segments = "segment" in config and not config["segment"].get("optional")
    assert set(counts) - {"default", "total"} == RULES | ({"segment"} if segments else set())
    assert counts["train"] == counts["evaluate"] == trainings
    # An empty gallery has no figure.
    galleries = [e.get("gallery") != [] for e in config["experiments"].values()]
    assert (counts["figures"], counts["idea"]) == (sum(2 + shown for shown in galleries), sum(galleries))


def test_every_job_is_a_command_that_can_be_pasted(workplace):
    run = snakemake(workplace, "--dry-run", "--configfile", "config/smoke.yaml")
    shown = commands(run.stdout)
    assert len(shown) == planned(run.stdout)["total"] - 1  # all but the target
    for command in shown:
        assert re.match(r"OMP_NUM_THREADS=\d+ python -m isnet_bench \w+ .*--config '\{.*\}' ", command)
    train = next(c for c in shown if " train " in c)
    (workplace / "results/smoke/logs/mnist").mkdir(parents=True)
    environment = os.environ | {"REAL_BENCH": str(ROOT / "isnet_bench")}
    subprocess.run(["bash", "-c", re.sub(r"> \S+ 2>&1$", "", train)], cwd=workplace, check=True, env=environment)
    out = shlex.split(train)[shlex.split(train).index("--out") + 1]
    assert (workplace / out / "weights.safetensors").exists()


def test_configfile_replaces_the_default_and_config_goes_on_top(workplace):
    def rename_and_drop(config):
        config["experiments"]["other"] = config["experiments"].pop("mnist")
        del config["timing"], config["studies"], config["overviews"]

    edit(workplace, rename_and_drop)
    run = snakemake(
        workplace,
        "--dry-run",
        "--configfile",
        "config/smoke.yaml",
        "--config",
        "seeds=[4]",
        "results=elsewhere",
    )
    assert run.returncode == 0, run.stdout
    assert "wildcards: experiment=other" in run.stdout
    assert "wildcards: experiment=mnist" not in run.stdout
    assert "output: elsewhere/other/resnet/seed4/weights.safetensors" in run.stdout
    assert "seed0" not in run.stdout
    assert not planned(run.stdout).keys() & {"time", "timing"}


@pytest.mark.slow
def test_second_call_does_nothing_and_a_change_runs_only_what_it_touches(workplace):
    smoke = ["--configfile", "config/smoke.yaml"]
    rows = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())["experiments"]["mnist"]["methods"]

    first = snakemake(workplace, *smoke)
    assert first.returncode == 0, first.stdout
    done = calls(workplace)
    assert done["prepare"] == done["collect"] == done["tables"] == done["time"] == done["timing"] == 1
    assert all(done[f"{verb} {row} 0"] == 1 for verb in ("train", "evaluate") for row in rows)

    second = snakemake(workplace, *smoke)
    assert "Nothing to be done" in second.stdout
    assert not calls(workplace)

    edit(workplace, lambda c: c["experiments"]["mnist"]["methods"]["resnet"].update(training={"epochs": 3}))
    snakemake(workplace, *smoke)
    again = {"train resnet 0", "evaluate resnet 0", "collect", "tables", "figures"}
    assert set(calls(workplace)) == again

    edit(workplace, lambda c: c["experiments"]["mnist"]["methods"].update(block=BLOCK))
    snakemake(workplace, *smoke)
    added = calls(workplace)
    assert sum(call.startswith("range original_isnet_") for call in added) == 1
    assert sum(call.startswith("range ") for call in added) == 1
    assert {"train block 0", "evaluate block 0", "collect", "tables", "figures"} <= set(added)
    assert sum(call.startswith("train ") for call in added) == 1

    edit(workplace, lambda c: c.update(seeds=[0, 1]))
    snakemake(workplace, *smoke)
    assert not [call for call in calls(workplace) if call.endswith(" 0") or call in ("prepare", "time")]

    edit(workplace, lambda c: c["timing"].update(rounds=3))
    snakemake(workplace, *smoke)
    assert calls(workplace) == {"time": 1, "timing": 1}

    edit(workplace, lambda c: c["timing"].update(cases={"larger": {"batch_size": 8}}))
    snakemake(workplace, *smoke)
    assert calls(workplace) == {"time": 1, "timing": 1}
    assert (workplace / "results/smoke/figures/training_memory_vs_classes_larger.png").exists()


@pytest.mark.slow
def test_what_is_missing_is_made_again(workplace):
    edit(workplace, few)
    smoke = ["--configfile", "config/smoke.yaml"]
    assert snakemake(workplace, *smoke).returncode == 0
    calls(workplace)

    shutil.rmtree(workplace / "results/smoke/mnist/ham")
    assert snakemake(workplace, *smoke).returncode == 0
    again = {"train ham 0": 1, "evaluate ham 0": 1, "collect": 1, "tables": 1, "figures": 4}
    assert calls(workplace) == again

    shutil.rmtree(workplace / "results/smoke/collected")
    assert snakemake(workplace, *smoke).returncode == 0
    assert calls(workplace) == {"collect": 1, "tables": 1, "figures": 4}

    # A forced run that was interrupted leaves tables of before, and no run: so does one that fails.
    forced = snakemake(workplace, *smoke, "--forcerun", "train", PRETEND_TO_FAIL="train")
    assert forced.returncode != 0
    calls(workplace)
    assert snakemake(workplace, *smoke).returncode == 0
    assert calls(workplace) == {**again, "train resnet 0": 1, "evaluate resnet 0": 1}
    assert "Nothing to be done" in snakemake(workplace, *smoke).stdout

    # Weights that were damaged are an error each time, not only the first.
    (workplace / "results/smoke/mnist/ham/seed0/weights.safetensors").write_text("damaged")
    for _ in range(2):
        run = snakemake(workplace, *smoke, PRETEND_TO_FAIL="evaluate")
        assert run.returncode != 0
        assert calls(workplace) == {"evaluate ham 0": 1}


@pytest.mark.slow
def test_a_change_of_a_methods_code_trains_it_again_and_no_other(workplace):
    edit(workplace, few)
    project = workplace / "project"
    for folder in ("isnet", "baselines", "isnet_bench", "workflow", "profiles"):
        shutil.copytree(ROOT / folder, project / folder)
    shutil.copy(ROOT / "Snakefile", project)
    smoke = ["--configfile", "config/smoke.yaml", "--snakefile", project / "Snakefile"]
    place = {"PYTHONPATH": str(project), "REAL_BENCH": str(project / "isnet_bench")}
    assert snakemake(workplace, *smoke, **place).returncode == 0
    calls(workplace)

    method = project / "baselines" / "ham.py"
    code = method.read_text(encoding="utf-8")
    method.write_text(f"{code}\n# A remark.\n", encoding="utf-8")
    assert "Nothing to be done" in snakemake(workplace, *smoke, **place).stdout
    method.write_text(f"{code}\nCHANGED = True\n", encoding="utf-8")
    assert snakemake(workplace, *smoke, **place).returncode == 0
    assert calls(workplace) == {"train ham 0": 1, "evaluate ham 0": 1, "collect": 1, "tables": 1, "figures": 4}


@pytest.mark.slow
def test_other_data_are_noticed_and_a_download_is_not_taken_for_other_data(workplace):
    edit(workplace, few)
    smoke, digits = ["--configfile", "config/smoke.yaml"], workplace / "data" / "MNIST" / "raw" / "digits"
    download = {"PRETEND_TO_DOWNLOAD": str(digits)}
    assert snakemake(workplace, *smoke, **download, ISNET_BENCH_DATA="data").returncode == 0
    first = calls(workplace)
    assert "Nothing to be done" in snakemake(workplace, *smoke, ISNET_BENCH_DATA="data").stdout

    digits.write_text("of another day")
    assert snakemake(workplace, *smoke, ISNET_BENCH_DATA="data").returncode == 0
    assert calls(workplace) == first
    assert snakemake(workplace, *smoke, ISNET_BENCH_DATA="elsewhere").returncode == 0
    assert calls(workplace) == first
    assert "Nothing to be done" in snakemake(workplace, *smoke, ISNET_BENCH_DATA="elsewhere").stdout


@pytest.mark.slow
def test_tuning_trains_every_candidate_and_tests_none(workplace):
    run = snakemake(workplace, "tuning", "--configfile", "config/smoke.yaml")
    assert run.returncode == 0, run.stdout
    done = calls(workplace)
    assert {call for call in done if call.startswith("train ")} == {
        "train range_classifier 100",
        *(f"train {method}_candidate{place} 100" for method in ("resnet", "stochastic_isnet") for place in (1, 2)),
    }
    assert {call.split()[0] for call in done} == {"prepare", "train", "range", "collect", "study"}
    assert (workplace / "results/smoke/tables/tuning.yaml").exists()


def test_an_empty_gallery_has_no_figure(workplace):
    edit(workplace, lambda config: config["experiments"]["mnist"].update(gallery=[]))
    run = snakemake(workplace, "--dry-run", "mnist", "--configfile", "config/smoke.yaml")
    assert run.returncode == 0, run.stdout
    assert planned(run.stdout)["figures"] == 2
    assert "mnist_heatmaps" not in run.stdout


@pytest.mark.slow
def test_a_study_is_a_target_and_another_value_runs_nothing_again(workplace):
    target = ["fraction", "--configfile", "config/smoke.yaml"]
    assert snakemake(workplace, *target).returncode == 0
    done = calls(workplace)
    rows = ("stochastic_isnet_1", "stochastic_isnet_1_8")
    assert {call: count for call, count in done.items() if call.startswith("train ")} == {
        "train range_classifier 0": 2,
        **{f"train {row} 0": 2 for row in rows},
    }
    assert (done["prepare"], done["collect"], done["study"], done["tables"], done["figures"]) == (2, 1, 1, 0, 0)
    assert (workplace / "results/smoke/figures/fraction.pdf").exists()

    edit(workplace, lambda c: c["studies"]["fraction"]["vary"][0]["values"].update({"1/4": 0.25}))
    snakemake(workplace, *target)
    added = {"train stochastic_isnet_1_4 0": 2, "evaluate stochastic_isnet_1_4 0": 2}
    assert calls(workplace) == {**added, "collect": 1, "study": 1}

    def add_a_study(config):
        config["studies"]["other"] = {**config["studies"]["fraction"], "rows": ["dual_isnet"]}
        config["experiments"]["mnist"]["methods"]["gain"] = {"params": {"mask_weight": 7.0}}

    edit(workplace, add_a_study)
    assert "Nothing to be done" in snakemake(workplace, *target).stdout


def test_all_studies_of_the_default_configuration_are_planned_at_once(workplace):
    run = snakemake(workplace, "--dry-run", "--quiet", "rules", "--", "studies", "bias_strength")
    assert run.returncode == 0, run.stdout
    studies = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())["studies"]
    counts = planned(run.stdout)
    assert counts["study"] + counts["choice"] == counts["collect_study"] == len(studies)
    # Seven strengths, five rows, three seeds; all others are added.
    assert counts["train"] > 7 * 5 * 3
    # Candidates are trained, and tested for an oracle alone.
    untested = [study for study in studies.values() if "candidates" in study and not study.get("oracle")]
    choices = [study["candidates"].values() for study in untested]
    candidates = sum(len(given) for methods in choices for given in methods)
    assert counts["train"] == counts["evaluate"] + candidates
    assert not counts.keys() & {"collect", "tables", "figures", "time", "timing"}


def test_target_of_one_experiment(workplace):
    run = snakemake(workplace, "--dry-run", "mnist")
    assert run.returncode == 0, run.stdout
    assert "timing" not in planned(run.stdout)


def test_unknown_key_is_one_sentence_that_lists_the_known_ones(workplace):
    edit(workplace, lambda config: config["experiments"]["mnist"]["training"].update(epocs=3))
    run = snakemake(workplace, "--configfile", "config/smoke.yaml")
    assert run.returncode != 0
    assert (
        "the configuration: experiments.mnist.training: unknown key 'epocs'; did you mean 'epochs'? known: "
    ) in run.stdout
    assert "Traceback" not in run.stdout
    assert not calls(workplace)


def test_what_snakemake_itself_lets_pass_is_refused(workplace):
    smoke = workplace / "config" / "smoke.yaml"
    text = smoke.read_text()
    smoke.write_text(text.replace("device: cpu", "device: cpu\nseeds: [1]"))
    run = snakemake(workplace, "--dry-run", "--configfile", smoke)
    assert run.returncode != 0
    assert "smoke.yaml cannot be read: 'seeds' is given twice" in run.stdout
    assert "Traceback" not in run.stdout
    smoke.write_text(text.replace("results: results/smoke", "results: 2026-01-01").replace("2.0e-3", "2e-3"))
    run = snakemake(workplace, "--dry-run", "--configfile", smoke)
    assert run.returncode == 0, run.stdout
    assert "2026-01-01/mnist/resnet/seed0/weights.safetensors" in run.stdout


@pytest.mark.slow
def test_settings_that_only_methods_and_backbones_can_judge_stop_before_any_job(workplace):
    def spoil(config):
        config["experiments"]["mnist"]["backbone"]["name"] = "resnet_smal"
        config["experiments"]["mnist"]["data"]["bias"] = {"pattern": "corner_shape", "size": 3}
        config["experiments"]["mnist"]["methods"]["stochastic_isnet"] = {"params": {"c1": 2.0, "c2": 1.0}}

    edit(workplace, spoil)
    run = snakemake(workplace, "--configfile", "config/smoke.yaml", CHECK_REALLY="check-config")
    assert run.returncode != 0
    assert not calls(workplace)
    for sentence in (
        "experiments.mnist.backbone: unknown backbone 'resnet_smal'; similar or common ones: resnet_small",
        "experiments.mnist.data: bias: size must be at least 6 pixels",
        "experiments.mnist.methods.stochastic_isnet: the foreground range needs 0 < c1 < c2, got c1=2.0",
    ):
        assert run.stdout.count(sentence) == 1, run.stdout
    assert "Traceback" not in run.stdout


def test_a_failing_job_shows_its_sentence(workplace):
    run = snakemake(workplace, "--configfile", "config/smoke.yaml", PRETEND_TO_FAIL="prepare")
    assert run.returncode != 0
    assert "error: the images of this experiment are missing; put them there" in run.stdout


@pytest.mark.slow
def test_lint_is_clean():
    run = snakemake(ROOT, "--lint")
    assert run.returncode == 0, run.stdout


@pytest.mark.slow
def test_every_rule_is_tested_and_gets_its_resources_from_the_slurm_profile(workplace):
    run = snakemake(workplace, "--list-rules", "--configfile", "config/smoke.yaml")
    listed = set(re.findall(r"^(\w+)$", run.stdout, flags=re.MULTILINE))
    config = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    named = {*config["experiments"], *config["studies"], *config["overviews"]}
    assert listed - named == RULES | ON_DEMAND | TARGETS
    profile = ROOT / "workflow" / "profiles" / "slurm"
    settings = yaml.safe_load((profile / "config.yaml").read_text())
    assert {*settings["set-threads"], *settings["set-resources"]} <= RULES | ON_DEMAND
    # As one would start it: without --cores, which are the cluster's matter.
    paper = ["--dry-run", "--configfile", "config/paper.yaml", "--workflow-profile", profile]
    run = snakemake(workplace, *paper, cores=())
    assert run.returncode == 0, run.stdout
    asked = dict(re.findall(r"^rule (\w+):\n(?:    .*\n)*?    resources: (.*)$", run.stdout, flags=re.MULTILINE))
    assert all(f"gpu={int(rule in ON_GPU)}" in resources.split(", ") for rule, resources in asked.items())
    assert asked.keys() >= RULES
    assert "threads:" not in run.stdout
    assert "runtime=1440" in asked["train"]


@pytest.mark.slow
def test_rules_on_demand(workplace):
    def add_xrays(config):
        data = {"name": "xray", "predicted_masks": "results/smoke/segment/masks"}
        config["experiments"] = {"xrays": {**config["experiments"]["mnist"], "data": data}}
        config["segment"] = {"masks": "a.csv", "manifest": "b.csv"}
        del config["timing"], config["studies"], config["overviews"]

    edit(workplace, add_xrays)
    target = "results/smoke/xrays/resnet/seed0/mediation.csv"
    run = snakemake(workplace, target, "--configfile", "config/smoke.yaml")
    assert run.returncode == 0, run.stdout
    assert calls(workplace) == {"segment": 1, "prepare": 1, "train resnet 0": 1, "mediate resnet 0": 1}
    assert (workplace / target).exists()


def test_smoke_configuration_runs_every_registered_method():
    from isnet_bench import methods

    config = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    rows = config["experiments"]["mnist"]["methods"] | config["studies"]["groups"]["rows"]
    assert {entry.get("method", row) for row, entry in rows.items()} == set(methods.names())
