# One training and its test for each experiment, method and seed.


rule range_classifier:
    input:
        data=rules.prepare.output,
    output:
        weights=f"{RESULTS}/{{experiment}}/range/classifier/seed{{seed}}/weights.safetensors",
        history=f"{RESULTS}/{{experiment}}/range/classifier/seed{{seed}}/history.csv",
        run=f"{RESULTS}/{{experiment}}/range/classifier/seed{{seed}}/run.json",
    log:
        f"{RESULTS}/logs/{{experiment}}/range/classifier/seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{experiment}}/range/classifier/seed{{seed}}.tsv"
    params:
        config=of_experiment("range_classifier"),
        row=configuration.CLASSIFIER,
        out=subpath(output.weights, parent=True),
    threads: 1
    resources:
        mem_mb=6000,
        runtime=360,
        gpu=GPUS,
    conda:
        ENVIRONMENT
    shell:
        "OMP_NUM_THREADS={threads} python -m isnet_bench train --config {params.config:q}"
        " --experiment {wildcards.experiment} --method {params.row} --seed {wildcards.seed}"
        " --data {input.data} --out {params.out} > {log} 2>&1"


rule relevance_range:
    input:
        data=rules.prepare.output,
        weights=rules.range_classifier.output.weights,
        run=rules.range_classifier.output.run,
    output:
        f"{RESULTS}/{{experiment}}/range/{{range_id}}/seed{{seed}}.json",
    log:
        f"{RESULTS}/logs/{{experiment}}/range/{{range_id}}/seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{experiment}}/range/{{range_id}}/seed{{seed}}.tsv"
    params:
        config=of_range,
        classifier=subpath(input.weights, parent=True),
    threads: 1
    resources:
        mem_mb=6000,
        runtime=60,
        gpu=GPUS,
    conda:
        ENVIRONMENT
    shell:
        "OMP_NUM_THREADS={threads} python -m isnet_bench range --config {params.config:q}"
        " --experiment {wildcards.experiment} --method {wildcards.range_id} --seed {wildcards.seed}"
        " --data {input.data} --classifier {params.classifier} --out {output} > {log} 2>&1"


rule train:
    input:
        data=rules.prepare.output,
        range=range_of,
    output:
        weights=f"{RUN}/weights.safetensors",
        history=f"{RUN}/history.csv",
        run=f"{RUN}/run.json",
    log:
        f"{RUN_LOGS}/train.log",
    benchmark:
        f"{RUN_BENCHMARKS}/train.tsv"
    params:
        config=of_method("train"),
        range=lambda wildcards, input: f"--range {input.range}" if input.range else "",
        out=subpath(output.weights, parent=True),
    threads: 1
    resources:
        mem_mb=6000,
        runtime=720,
        gpu=GPUS,
    conda:
        ENVIRONMENT
    shell:
        "OMP_NUM_THREADS={threads} python -m isnet_bench train --config {params.config:q}"
        " --experiment {wildcards.experiment} --method {wildcards.method} --seed {wildcards.seed}"
        " --data {input.data} {params.range} --out {params.out} > {log} 2>&1"


rule evaluate:
    input:
        data=rules.prepare.output,
        weights=rules.train.output.weights,
        run=rules.train.output.run,
    output:
        metrics=report(
            f"{RUN}/metrics.json",
            caption="../report/metrics.rst",
            category="Runs",
            labels={"experiment": "{experiment}", "method": "{method}", "seed": "{seed}"},
        ),
        predictions=f"{RUN}/predictions.parquet",
        heatmaps=f"{RUN}/heatmaps.npz",
    log:
        f"{RUN_LOGS}/evaluate.log",
    benchmark:
        f"{RUN_BENCHMARKS}/evaluate.tsv"
    params:
        config=of_method("evaluate"),
        run=subpath(input.weights, parent=True),
    threads: 1
    resources:
        mem_mb=6000,
        runtime=120,
        gpu=GPUS,
    conda:
        ENVIRONMENT
    shell:
        "OMP_NUM_THREADS={threads} python -m isnet_bench evaluate --config {params.config:q}"
        " --experiment {wildcards.experiment} --method {wildcards.method} --seed {wildcards.seed}"
        " --data {input.data} --run {params.run} > {log} 2>&1"


# On demand, by the name of its file: docs/reporting.md.
rule mediation:
    input:
        data=rules.prepare.output,
        weights=rules.train.output.weights,
        run=rules.train.output.run,
    output:
        f"{RUN}/mediation.csv",
    log:
        f"{RUN_LOGS}/mediation.log",
    benchmark:
        f"{RUN_BENCHMARKS}/mediation.tsv"
    params:
        config=of_method("evaluate"),
        run=subpath(input.weights, parent=True),
    threads: 1
    resources:
        mem_mb=6000,
        runtime=120,
        gpu=GPUS,
    conda:
        ENVIRONMENT
    shell:
        "OMP_NUM_THREADS={threads} python -m isnet_bench mediate --config {params.config:q}"
        " --experiment {wildcards.experiment} --method {wildcards.method} --seed {wildcards.seed}"
        " --data {input.data} --run {params.run} > {log} 2>&1"
