# A target for each experiment: `snakemake --cores all mnist`.

for experiment in EXPERIMENTS:

    rule:
        name:
            experiment
        input:
            experiment_outputs(experiment),
