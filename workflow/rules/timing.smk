# Time and memory of a training step against the number of classes, for each timing study.


rule timing:
    output:
        json=f"{RESULTS}/timing/training_step{{study}}.json",
        table=f"{RESULTS}/tables/timing{{study}}.csv",
    log:
        f"{RESULTS}/logs/timing{{study}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/timing{{study}}.tsv"
    params:
        config=of_study,
        study=lambda wildcards: STUDIES[wildcards.study],
    # All cores: a training beside it would be measured, too.
    threads: lambda wildcards: workflow.resource_settings.cores or os.cpu_count()
    resources:
        mem_mb=8000,
        runtime=240,
        gpu=GPUS,
    conda:
        ENVIRONMENT
    shell:
        "OMP_NUM_THREADS={threads} python -m isnet_bench time --config {params.config:q} --study {params.study}"
        " --out {output.json} --table {output.table} > {log} 2>&1"


rule timing_page:
    input:
        rules.timing.output.json,
    output:
        report(
            f"{RESULTS}/tables/timing{{study}}.html",
            caption="../report/timing_table.rst",
            category="Tables",
            labels={"experiment": "timing{study}", "shows": "training steps"},
        ),
    log:
        f"{RESULTS}/logs/timing_page{{study}}.log",
    params:
        config=of_study,
        study=lambda wildcards: STUDIES[wildcards.study],
        results=subpath(output[0], ancestor=2),
    threads: 1
    resources:
        mem_mb=2000,
        runtime=20,
    conda:
        ENVIRONMENT
    shell:
        "OMP_NUM_THREADS={threads} python -m isnet_bench page --config {params.config:q}"
        " --study {params.study} --results {params.results} --out {output} > {log} 2>&1"


rule timing_figure:
    input:
        rules.timing.output.json,
    output:
        png=report(
            f"{RESULTS}/figures/training_{{quantity}}_vs_classes{{study}}.png",
            caption="../report/timing.rst",
            category="Figures",
            labels={"experiment": "timing{study}", "shows": "{quantity}"},
        ),
        pdf=f"{RESULTS}/figures/training_{{quantity}}_vs_classes{{study}}.pdf",
    log:
        f"{RESULTS}/logs/training_{{quantity}}_vs_classes{{study}}.log",
    wildcard_constraints:
        quantity="time|memory",
    params:
        config=of_study,
        study=lambda wildcards: STUDIES[wildcards.study],
        kind=lambda wildcards: {"time": "timing", "memory": "memory"}[wildcards.quantity],
        results=subpath(output.png, ancestor=2),
        out=lambda wildcards, output: os.path.splitext(output.png)[0],
    threads: 1
    resources:
        mem_mb=2000,
        runtime=20,
    conda:
        ENVIRONMENT
    shell:
        "OMP_NUM_THREADS={threads} python -m isnet_bench figures --config {params.config:q} --kind {params.kind}"
        " --study {params.study} --results {params.results} --out {params.out} > {log} 2>&1"


# The target of `make bench`.
rule bench:
    input:
        timing_outputs(),
