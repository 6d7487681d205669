include: "workflow/Snakefile"


# A default target does not pass through an include.
rule default:
    default_target: True
    input:
        rules.all.input,
