# What the tables and figures of an experiment or a study are made of; then these, and a target for each.


rule collect:
    input:
        lambda wildcards: experiment_runs(wildcards.experiment),
    output:
        directory(LAYOUT.collected("{experiment}")),
    log:
        LAYOUT.log("{experiment}", "collect"),
    params:
        config=part_of("report", "experiment"),
        name="--experiment {experiment}",
        results=subpath(output[0], ancestor=2),
    wildcard_constraints:
        experiment="|".join(CONFIG.experiments) or "-",
    conda:
        ENVIRONMENT
    shell:
        "OMP_NUM_THREADS={threads} python -m isnet_bench collect --config {params.config:q} {params.name}"
        " --results {params.results:q} > {log} 2>&1"


use rule collect as collect_study with:
    input:
        lambda wildcards: study_runs(wildcards.study),
    output:
        directory(LAYOUT.collected("{study}")),
    log:
        LAYOUT.log("{study}", "collect"),
    params:
        config=part_of("report", "study"),
        name="--study {study}",
        results=subpath(output[0], ancestor=2),
    wildcard_constraints:
        study="|".join(CONFIG.studies) or "-",


rule tables:
    input:
        rules.collect.output,
    output:
        table("{experiment}", "csv", "md", "tex"),
        LAYOUT.table("{experiment}_classes", "csv"),
        table("{experiment}_comparison", "csv", "md", "tex"),
        html=report(
            LAYOUT.table("{experiment}", "html"),
            caption="../report/table.rst",
            category="Tables",
            labels={"experiment": "{experiment}", "shows": "all methods"},
        ),
        comparison=report(
            LAYOUT.table("{experiment}_comparison", "html"),
            caption="../report/comparison.rst",
            category="Decision",
            labels={"experiment": "{experiment}", "shows": "each method against the best ISNet"},
        ),
    log:
        LAYOUT.log("{experiment}", "tables"),
    params:
        config=part_of("report", "experiment"),
        what="tables --experiment {experiment}",
        results=subpath(output.html, ancestor=2),
    conda:
        ENVIRONMENT
    shell:
        "OMP_NUM_THREADS={threads} python -m isnet_bench {params.what} --config {params.config:q}"
        " --results {params.results:q} > {log} 2>&1"


use rule tables as figures with:
    output:
        LAYOUT.figure("{experiment}_{kind}", "pdf"),
        png=report(
            LAYOUT.figure("{experiment}_{kind}", "png"),
            caption="../report/figure.rst",
            category="Figures",
            labels={"experiment": "{experiment}", "shows": "{kind}"},
        ),
    log:
        LAYOUT.log("{experiment}", "{kind}_figure"),
    wildcard_constraints:
        kind="accuracy|heatmaps|tradeoff",
    params:
        config=part_of("report", "experiment"),
        what="figures --experiment {experiment} --kind {kind}",
        results=subpath(output.png, ancestor=2),


# What two classifiers look at, and what that costs them: the first thing to see.
use rule figures as idea with:
    output:
        LAYOUT.figure("{experiment}_{kind}", "pdf"),
        png=report(
            LAYOUT.figure("{experiment}_{kind}", "png"),
            caption="../report/figure.rst",
            category="Decision",
            labels={"experiment": "{experiment}", "shows": "what two classifiers look at"},
        ),
    wildcard_constraints:
        kind="idea",


use rule tables as study with:
    input:
        rules.collect_study.output,
    output:
        table("{study}", "csv", "md", "tex"),
        LAYOUT.figure("{study}", "pdf"),
        html=report(
            LAYOUT.table("{study}", "html"),
            caption="../report/study.rst",
            category="Tables",
            labels={"experiment": "{study}", "shows": "all values"},
        ),
        png=report(
            LAYOUT.figure("{study}", "png"),
            caption="../report/study.rst",
            category="Figures",
            labels={"experiment": "{study}", "shows": "all values"},
        ),
    log:
        LAYOUT.log("{study}", "study"),
    wildcard_constraints:
        study="|".join(set(CONFIG.studies) - set(CHOICES)) or "-",
    params:
        config=part_of("report", "study"),
        what="study --study {study}",
        results=subpath(output.png, ancestor=2),


# Candidates among which validation images choose: what was chosen, in place of a figure.
use rule study as choice with:
    output:
        table("{study}", "csv", "md", "tex", "yaml"),
        html=report(
            LAYOUT.table("{study}", "html"),
            caption="../report/study.rst",
            category="Tables",
            labels={"experiment": "{study}", "shows": "all candidates"},
        ),
    wildcard_constraints:
        study="|".join(CHOICES) or "-",
    params:
        config=part_of("report", "study"),
        what="study --study {study}",
        results=subpath(output.html, ancestor=2),


use rule study as overview with:
    input:
        lambda wildcards: overview_runs(wildcards.overview),
    output:
        table("{overview}", "csv", "md", "tex"),
        LAYOUT.figure("{overview}", "pdf"),
        html=report(
            LAYOUT.table("{overview}", "html"),
            caption="../report/overview.rst",
            category="Decision",
            labels={"experiment": "{overview}", "shows": "all conditions, table"},
        ),
        png=report(
            LAYOUT.figure("{overview}", "png"),
            caption="../report/overview.rst",
            category="Decision",
            labels={"experiment": "{overview}", "shows": "all conditions, figure"},
        ),
    log:
        LAYOUT.log("{overview}", "overview"),
    wildcard_constraints:
        overview="|".join(CONFIG.overviews) or "-",
    params:
        config=part_of("report", "overview"),
        what="overview --overview {overview}",
        results=subpath(output.png, ancestor=2),


# All that is asked for with values of settings: `snakemake --cores all studies`.
rule studies:
    input:
        [study_outputs(study) for study in CONFIG.studies],


OUTPUTS = {
    **{name: experiment_outputs(name) for name in CONFIG.experiments},
    **{name: study_outputs(name) for name in CONFIG.studies},
    **{name: overview_outputs(name) for name in CONFIG.overviews},
}

# A target for each: `snakemake --cores all mnist`.
for name, outputs in OUTPUTS.items():

    rule:
        name:
            name
        input:
            outputs,
