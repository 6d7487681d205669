# Tables and figures of an experiment.


rule tables:
    input:
        runs_of("metrics.json"),
        runs_of("predictions.parquet"),
    output:
        csv=f"{RESULTS}/tables/{{experiment}}.csv",
        md=f"{RESULTS}/tables/{{experiment}}.md",
        tex=f"{RESULTS}/tables/{{experiment}}.tex",
        classes=f"{RESULTS}/tables/{{experiment}}_classes.csv",
        comparison=multiext(f"{RESULTS}/tables/{{experiment}}_comparison", ".csv", ".md", ".tex"),
        html=report(
            f"{RESULTS}/tables/{{experiment}}.html",
            caption="../report/table.rst",
            category="Tables",
            labels={"experiment": "{experiment}", "shows": "all methods"},
        ),
        comparison_html=report(
            f"{RESULTS}/tables/{{experiment}}_comparison.html",
            caption="../report/comparison.rst",
            category="Tables",
            labels={"experiment": "{experiment}", "shows": "differences"},
        ),
    log:
        f"{RESULTS}/logs/{{experiment}}/tables.log",
    params:
        config=of_experiment("tables"),
        results=subpath(output.csv, ancestor=2),
        out=lambda wildcards, output: os.path.splitext(output.csv)[0],
    threads: 1
    resources:
        mem_mb=2000,
        runtime=20,
    conda:
        ENVIRONMENT
    shell:
        "OMP_NUM_THREADS={threads} python -m isnet_bench tables --config {params.config:q}"
        " --experiment {wildcards.experiment} --results {params.results} --out {params.out} > {log} 2>&1"


rule figures:
    input:
        runs_of("metrics.json"),
        runs_of("predictions.parquet"),
        runs_of("heatmaps.npz"),
    output:
        png=report(
            f"{RESULTS}/figures/{{experiment}}_{{kind}}.png",
            caption="../report/figure.rst",
            category="Figures",
            labels={"experiment": "{experiment}", "shows": "{kind}"},
        ),
        pdf=f"{RESULTS}/figures/{{experiment}}_{{kind}}.pdf",
    log:
        f"{RESULTS}/logs/{{experiment}}/{{kind}}_figure.log",
    wildcard_constraints:
        kind="accuracy|heatmaps|tradeoff",
    params:
        config=of_experiment("figures"),
        results=subpath(output.png, ancestor=2),
        out=lambda wildcards, output: os.path.splitext(output.png)[0],
    threads: 1
    resources:
        mem_mb=2000,
        runtime=20,
    conda:
        ENVIRONMENT
    shell:
        "OMP_NUM_THREADS={threads} python -m isnet_bench figures --config {params.config:q} --kind {wildcards.kind}"
        " --experiment {wildcards.experiment} --results {params.results} --out {params.out} > {log} 2>&1"
