# Choice among the candidates of each method: `snakemake --cores all tune`. No test image has a part in it.


rule tuning:
    input:
        expand(
            f"{RESULTS}/{TUNING}/{{row}}/seed{{seed}}/{{file}}",
            row=[row for rows in configuration.candidates.rows(config).values() for row in rows],
            seed=config["tuning"]["seed"],
            file=["run.json", "history.csv"],
        ),
    output:
        csv=f"{RESULTS}/tables/tuning.csv",
        md=f"{RESULTS}/tables/tuning.md",
        yaml=f"{RESULTS}/tables/tuning.yaml",
        json=f"{RESULTS}/tables/tuning.json",
    log:
        f"{RESULTS}/logs/tuning.log",
    params:
        config=job_config("tune"),
        results=subpath(output.csv, ancestor=2),
        out=lambda wildcards, output: os.path.splitext(output.csv)[0],
    threads: 1
    resources:
        mem_mb=2000,
        runtime=20,
    conda:
        ENVIRONMENT
    shell:
        "OMP_NUM_THREADS={threads} python -m isnet_bench tune --config {params.config:q}"
        " --results {params.results} --out {params.out} > {log} 2>&1"


rule tune:
    input:
        rules.tuning.output,
