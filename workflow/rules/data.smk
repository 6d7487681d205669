# Images and masks: lung masks for the X-rays that have none, then the data of each experiment.


rule segment:
    output:
        weights=LAYOUT.segment() / layout.WEIGHTS,
        history=LAYOUT.segment() / layout.HISTORY,
        run=LAYOUT.segment() / layout.RECORD,
        masks=directory(LAYOUT.masks()),
        table=LAYOUT.segment() / "masks.csv",
        text=LAYOUT.segment() / "report.md",
        metrics=report(LAYOUT.segment() / layout.METRICS, caption="../report/segment.rst", category="Lung masks"),
    log:
        LAYOUT.log("segment"),
    benchmark:
        LAYOUT.benchmark("segment")
    params:
        config=part_of("segment"),
        files=CONFIG.segment and CONFIG.segment.files(),
        out=subpath(output.weights, parent=True),
    threads: 4
    priority: BEFORE_TRAINING
    resources:
        runtime=120,
        gpu=GPUS,
    conda:
        ENVIRONMENT
    shell:
        "OMP_NUM_THREADS={threads} python -m isnet_bench segment --config {params.config:q}"
        " --out {params.out} > {log} 2>&1"


rule prepare:
    input:
        predicted_masks,
    output:
        directory(LAYOUT.data("{experiment}")),
    log:
        LAYOUT.log("{experiment}", "prepare"),
    params:
        config=part_of("prepare", "experiment"),
        source=lambda wildcards: CONFIG.catalog.data[CONFIG.experiment(wildcards.experiment).data.name].code,
        files=data_files,
    priority: BEFORE_TRAINING
    conda:
        ENVIRONMENT
    shell:
        "OMP_NUM_THREADS={threads} python -m isnet_bench prepare --config {params.config:q}"
        " --experiment {wildcards.experiment} --files {params.files} --out {output} > {log} 2>&1"
