# Time and memory of a training step against the number of classes, for each timing case.


rule time:
    output:
        LAYOUT.timing("_{case}"),
    log:
        LAYOUT.log("time_{case}"),
    benchmark:
        LAYOUT.benchmark("time_{case}")
    params:
        config=part_of("time", "case"),
        results=subpath(output[0], ancestor=2),
    # All cores, where Snakemake is told their number: a training beside it would be measured, too.
    threads: workflow.resource_settings.cores or 1
    resources:
        mem_mb=8000,
        runtime=240,
        gpu=GPUS,
    conda:
        ENVIRONMENT
    shell:
        "OMP_NUM_THREADS={threads} python -m isnet_bench time --config {params.config:q} --case {wildcards.case}"
        " --results {params.results:q} > {log} 2>&1"


rule timing:
    input:
        rules.time.output,
    output:
        table("timing_{case}", "csv", "md", "tex"),
        [LAYOUT.figure(f"training_{quantity}_vs_classes_{{case}}", "pdf") for quantity in QUANTITIES],
        html=report(
            LAYOUT.table("timing_{case}", "html"),
            caption="../report/timing_table.rst",
            category="Tables",
            labels={"experiment": "timing_{case}", "shows": "training steps"},
        ),
        time=report(
            LAYOUT.figure("training_time_vs_classes_{case}", "png"),
            caption="../report/timing.rst",
            category="Figures",
            labels={"experiment": "timing_{case}", "shows": "time"},
        ),
        memory=report(
            LAYOUT.figure("training_memory_vs_classes_{case}", "png"),
            caption="../report/timing.rst",
            category="Figures",
            labels={"experiment": "timing_{case}", "shows": "memory"},
        ),
    log:
        LAYOUT.log("timing_{case}"),
    params:
        config=part_of("time", "case"),
        results=subpath(output.html, ancestor=2),
    conda:
        ENVIRONMENT
    shell:
        "OMP_NUM_THREADS={threads} python -m isnet_bench timing --config {params.config:q} --case {wildcards.case}"
        " --results {params.results:q} > {log} 2>&1"


# The target of `make bench`.
rule bench:
    input:
        timing_outputs(),
