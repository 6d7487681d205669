# Studies: settings that take several values. A target for each, `snakemake --cores all bias_strength`, and one for all,
# `snakemake --cores all studies`. Their runs are made by the rules that make all others.


rule study:
    input:
        metrics_of_variation,
    output:
        csv=f"{RESULTS}/tables/{{variation}}.csv",
        html=report(
            f"{RESULTS}/tables/{{variation}}.html",
            caption="../report/study.rst",
            category="Tables",
            labels={"experiment": "{variation}", "shows": "all values"},
        ),
        md=f"{RESULTS}/tables/{{variation}}.md",
        tex=f"{RESULTS}/tables/{{variation}}.tex",
        png=report(
            f"{RESULTS}/figures/{{variation}}.png",
            caption="../report/study.rst",
            category="Figures",
            labels={"experiment": "{variation}", "shows": "all values"},
        ),
        pdf=f"{RESULTS}/figures/{{variation}}.pdf",
    log:
        f"{RESULTS}/logs/{{variation}}.log",
    params:
        config=of_variation,
        results=subpath(output.csv, ancestor=2),
        table=lambda wildcards, output: os.path.splitext(output.csv)[0],
        figure=lambda wildcards, output: os.path.splitext(output.png)[0],
    threads: 1
    resources:
        mem_mb=2000,
        runtime=20,
    conda:
        ENVIRONMENT
    shell:
        "OMP_NUM_THREADS={threads} python -m isnet_bench study --config {params.config:q} --study {wildcards.variation}"
        " --results {params.results} --out {params.table} --figure {params.figure} > {log} 2>&1"


rule studies:
    input:
        [variation_outputs(study) for study in VARIATIONS],


for study in VARIATIONS:

    rule:
        name:
            study
        input:
            variation_outputs(study),
