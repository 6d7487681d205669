# The whole benchmark: `snakemake --cores all`. Every job is a call of `python -m isnet_bench` that a person can paste.
from snakemake.utils import min_version

min_version("9.0")

# A configuration given with --configfile replaces the default one; as a rule Snakemake would merge the two.
if not workflow.overwrite_configfiles:

    configfile: "config/config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"


rule all:
    default_target: True
    input:
        [experiment_outputs(experiment) for experiment in EXPERIMENTS],
        segment_outputs(),
        timing_outputs(),


include: "workflow/rules/segment.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/runs.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/timing.smk"
include: "workflow/rules/experiments.smk"


if VARIATIONS:

    include: "workflow/rules/variations.smk"


if TUNING is not None:

    include: "workflow/rules/tuning.smk"
