# One training and its test for each experiment, row and seed. The parameter source makes a change of the code count.


rule train:
    input:
        data=rules.prepare.output,
        range=range_of,
    output:
        weights=RUN / layout.WEIGHTS,
        history=RUN / layout.HISTORY,
        run=RUN / layout.RECORD,
    log:
        LAYOUT.log("{experiment}", "{row}", "seed{seed}", "train"),
    benchmark:
        LAYOUT.benchmark("{experiment}", "{row}", "seed{seed}", "train")
    params:
        config=part_of("train", "experiment", "row"),
        source=lambda wildcards: CONFIG.source(wildcards.experiment, wildcards.row),
        row="{row}",
        range=lambda wildcards, input: f"--range {input.range}" if input.get("range") else "",
        out=subpath(output.weights, parent=True),
    priority: longest_first
    resources:
        runtime=720,
        gpu=GPUS,
    conda:
        ENVIRONMENT
    shell:
        "OMP_NUM_THREADS={threads} python -m isnet_bench train --config {params.config:q}"
        " --experiment {wildcards.experiment} --row {params.row} --seed {wildcards.seed}"
        " --data {input.data} {params.range} --out {params.out} > {log} 2>&1"


use rule train as range_classifier with:
    input:
        data=rules.prepare.output,
    output:
        weights=LAYOUT.range_classifier("{experiment}", "{seed}") / layout.WEIGHTS,
        history=LAYOUT.range_classifier("{experiment}", "{seed}") / layout.HISTORY,
        run=LAYOUT.range_classifier("{experiment}", "{seed}") / layout.RECORD,
    log:
        LAYOUT.log("{experiment}", "range", "classifier", "seed{seed}"),
    benchmark:
        LAYOUT.benchmark("{experiment}", "range", "classifier", "seed{seed}")
    params:
        config=part_of("range_classifier", "experiment"),
        source=CONFIG.catalog.methods[configuration.PLAIN].code,
        row=configuration.CLASSIFIER,
        range="",
        out=subpath(output.weights, parent=True),
    priority: BEFORE_TRAINING


rule relevance_range:
    input:
        data=rules.prepare.output,
        weights=rules.range_classifier.output.weights,
        run=rules.range_classifier.output.run,
    output:
        LAYOUT.range("{experiment}", "{range_id}", "{seed}"),
    log:
        LAYOUT.log("{experiment}", "range", "{range_id}", "seed{seed}"),
    benchmark:
        LAYOUT.benchmark("{experiment}", "range", "{range_id}", "seed{seed}")
    params:
        config=part_of_range,
        source=lambda wildcards: CONFIG.source(wildcards.experiment, row_of_range(wildcards)),
        classifier=subpath(input.weights, parent=True),
    priority: BEFORE_TRAINING
    resources:
        gpu=GPUS,
    conda:
        ENVIRONMENT
    shell:
        "OMP_NUM_THREADS={threads} python -m isnet_bench range --config {params.config:q}"
        " --experiment {wildcards.experiment} --row {wildcards.range_id} --seed {wildcards.seed}"
        " --data {input.data} --classifier {params.classifier} --out {output} > {log} 2>&1"


rule evaluate:
    input:
        data=rules.prepare.output,
        weights=rules.train.output.weights,
        run=rules.train.output.run,
    output:
        metrics=report(
            RUN / layout.METRICS,
            caption="../report/metrics.rst",
            category="Runs",
            labels={"experiment": "{experiment}", "method": "{row}", "seed": "{seed}"},
        ),
        predictions=RUN / layout.PREDICTIONS,
        heatmaps=RUN / layout.HEATMAPS,
    log:
        LAYOUT.log("{experiment}", "{row}", "seed{seed}", "evaluate"),
    benchmark:
        LAYOUT.benchmark("{experiment}", "{row}", "seed{seed}", "evaluate")
    params:
        config=part_of("evaluate", "experiment", "row"),
        verb="evaluate",
        run=subpath(input.weights, parent=True),
    resources:
        runtime=120,
        gpu=GPUS,
    conda:
        ENVIRONMENT
    shell:
        "OMP_NUM_THREADS={threads} python -m isnet_bench {params.verb} --config {params.config:q}"
        " --experiment {wildcards.experiment} --row {wildcards.row} --seed {wildcards.seed}"
        " --data {input.data} --run {params.run} > {log} 2>&1"


# On demand, by the name of its file: docs/reporting.md.
use rule evaluate as mediation with:
    output:
        RUN / layout.MEDIATION,
    log:
        LAYOUT.log("{experiment}", "{row}", "seed{seed}", "mediation"),
    benchmark:
        LAYOUT.benchmark("{experiment}", "{row}", "seed{seed}", "mediation")
    params:
        config=part_of("evaluate", "experiment", "row"),
        verb="mediate",
        run=subpath(input.weights, parent=True),
