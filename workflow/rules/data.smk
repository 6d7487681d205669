# Images and masks of an experiment.


rule prepare:
    input:
        predicted_masks,
    output:
        directory(f"{RESULTS}/data/{{experiment}}"),
    log:
        f"{RESULTS}/logs/{{experiment}}/prepare.log",
    params:
        config=of_experiment("prepare"),
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    conda:
        ENVIRONMENT
    shell:
        "OMP_NUM_THREADS={threads} python -m isnet_bench prepare --config {params.config:q}"
        " --experiment {wildcards.experiment} --out {output} > {log} 2>&1"
