# Time of a training step against the number of classes.


rule timing:
    output:
        json=f"{RESULTS}/timing/training_step.json",
        table=report(f"{RESULTS}/tables/timing.csv", caption="../report/timing_table.rst", category="Tables"),
    log:
        f"{RESULTS}/logs/timing.log",
    benchmark:
        f"{RESULTS}/benchmarks/timing.tsv"
    params:
        config=job_config("time"),
    # All cores: a training beside it would be measured, too.
    threads: lambda wildcards: workflow.cores
    resources:
        mem_mb=8000,
        runtime=240,
        gpu=GPUS,
    conda:
        ENVIRONMENT
    shell:
        "OMP_NUM_THREADS={threads} python -m isnet_bench time --config {params.config:q}"
        " --out {output.json} --table {output.table} > {log} 2>&1"


rule timing_figure:
    input:
        rules.timing.output.json,
    output:
        png=report(
            f"{RESULTS}/figures/training_time_vs_classes.png",
            caption="../report/timing.rst",
            category="Figures",
            labels={"shows": "training time"},
        ),
        pdf=f"{RESULTS}/figures/training_time_vs_classes.pdf",
    log:
        f"{RESULTS}/logs/timing_figure.log",
    params:
        config=job_config("time"),
        results=subpath(output.png, ancestor=2),
        out=lambda wildcards, output: os.path.splitext(output.png)[0],
    threads: 1
    resources:
        mem_mb=2000,
        runtime=20,
    conda:
        ENVIRONMENT
    shell:
        "OMP_NUM_THREADS={threads} python -m isnet_bench figures --config {params.config:q} --kind timing"
        " --results {params.results} --out {params.out} > {log} 2>&1"
