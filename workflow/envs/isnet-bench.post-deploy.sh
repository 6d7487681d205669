#!/usr/bin/env bash
# Snakemake runs this in the new environment, in the folder that it was started in: the root of the repository.
set -euo pipefail
python -m pip install --quiet --constraint constraints.txt --editable '.[bench,workflow,test,docs]'
