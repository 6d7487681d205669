# A target for each experiment: `snakemake --cores all mnist`.

for experiment in config["experiments"]:

    rule:
        name:
            experiment
        input:
            experiment_outputs(experiment),
