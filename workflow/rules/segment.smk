# Lung masks for the X-rays that have none.


rule segment:
    output:
        weights=f"{RESULTS}/segment/weights.safetensors",
        history=f"{RESULTS}/segment/history.csv",
        run=f"{RESULTS}/segment/run.json",
        masks=directory(MASKS),
        table=f"{RESULTS}/segment/masks.csv",
        text=f"{RESULTS}/segment/report.md",
        metrics=report(f"{RESULTS}/segment/metrics.json", caption="../report/segment.rst", category="Lung masks"),
    log:
        f"{RESULTS}/logs/segment.log",
    benchmark:
        f"{RESULTS}/benchmarks/segment.tsv"
    params:
        config=job_config("segment"),
        out=subpath(output.weights, parent=True),
    threads: 4
    resources:
        mem_mb=6000,
        runtime=120,
        gpu=GPUS,
    conda:
        ENVIRONMENT
    shell:
        "OMP_NUM_THREADS={threads} python -m isnet_bench segment --config {params.config:q}"
        " --out {params.out} > {log} 2>&1"
