# `make reproduce` takes a fresh machine from nothing to the tables and figures. Needs Python 3.11 to 3.13.
PYTHON ?= python3
VENV ?= .venv
CORES ?= all
CONFIG ?= config/config.yaml
RESULTS ?= results
PUBLISHED ?= results/published
# paper-check tries so large a share of the rows: 2 (two processes of half the rows each) is all of them, 6 a third.
PAPER_SHARES ?= 2

READY := $(VENV)/.ready
RUN := PATH="$(abspath $(VENV))/bin:$$PATH"
SNAKEMAKE := $(RUN) snakemake --cores $(CORES)

.PHONY: reproduce smoke paper-check test test-fast test-all test-cluster bench tune figures report publish archive lint docs numbers schema environment clean distclean help
.DELETE_ON_ERROR:

reproduce: $(READY)  ## everything of CONFIG (default: config/config.yaml)
	$(SNAKEMAKE) --configfile $(CONFIG)

smoke: $(READY)  ## every rule and method, tiny: a first look in minutes
	$(SNAKEMAKE) --configfile config/smoke.yaml

paper-check: $(READY)  ## does every row of config/paper.yaml run at its size? Two batches of a few images each
	$(RUN) && export OMP_NUM_THREADS=1 && seq 2 | xargs -P 2 -I@ \
	  python -m isnet_bench check-run --config config/paper.yaml --share @/$(PAPER_SHARES)

test: $(READY)  ## the tests, with a few of the rounds of damage and of the architectures
	$(RUN) OMP_NUM_THREADS=1 FAULT_ROUNDS=8 SWEEP_STEP=20 python -m pytest -n 2 -m "not cluster"

test-all: $(READY)  ## the tests, with all rounds of kills and damaged files and all architectures
	$(RUN) OMP_NUM_THREADS=1 python -m pytest -n 2 -m "not cluster"

test-fast: $(READY)  ## the tests that take no more than a few seconds each
	$(RUN) OMP_NUM_THREADS=1 python -m pytest -n 2 -m "not slow"

test-cluster: $(READY)  ## the Slurm profile on a Slurm of one node (Debian's slurm-wlm, as root)
	$(RUN) OMP_NUM_THREADS=1 python -m pytest -m cluster

bench: $(READY)  ## measure the training time again
	$(SNAKEMAKE) bench --configfile $(CONFIG) --forcerun time

tune: $(READY)  ## choose the hyper-parameters again, by iid validation images alone
	$(SNAKEMAKE) tuning --configfile $(CONFIG)

figures: $(READY)  ## every table and figure of results/published again, from its numbers alone
	$(RUN) && export OMP_NUM_THREADS=1 && find $(PUBLISHED) -name config.yaml | sort | xargs -I@ \
	  sh -c 'python -m isnet_bench redraw --config @ --results "$$(dirname @)"'

report: $(READY)  ## one page with every table and figure of CONFIG's finished runs, RESULTS/report.html
	$(SNAKEMAKE) --configfile $(CONFIG) --report $(RESULTS)/report.html \
	  --report-stylesheet workflow/report/style.css
	$(RUN) python workflow/report/check.py $(RESULTS)/report.html

publish: $(READY)  ## put the finished runs of CONFIG, in short, into results/published
	$(RUN) OMP_NUM_THREADS=1 python -m isnet_bench publish --config $(CONFIG) --results $(RESULTS) --out $(PUBLISHED)

archive: $(READY)  ## weights, predictions and figures of the finished runs in build/isnet-bench.tar, with checksums
	$(RUN) python -m isnet_bench archive --config $(CONFIG) --results $(RESULTS) --published $(PUBLISHED)

lint: $(READY)  ## ruff, mypy (the library) and snakemake --lint
	$(RUN) ruff check .
	$(RUN) mypy
	$(RUN) snakemake --lint

docs: $(READY)  ## the documentation as a site in build/site; a warning is an error
	$(RUN) NO_MKDOCS_2_WARNING=1 python -m mkdocs build --quiet

numbers: $(READY)  ## README.md and docs/results.md again, from their templates and the numbers of results/published
	$(RUN) python docs/fill.py

schema: $(READY)  ## write the configuration's JSON Schema and the catalogue of methods and data sets again
	$(RUN) python -m isnet_bench schema

environment: $(READY)  ## only the virtual environment

clean:  ## remove outputs and caches (not the environment, not results/published)
	rm -rf .snakemake .pytest_cache .ruff_cache .benchmarks
	find results -mindepth 1 -maxdepth 1 ! -name published -exec rm -rf {} + 2>/dev/null || true

distclean: clean  ## remove the environment too
	rm -rf $(VENV) *.egg-info

help:
	@sed -n 's/^\([a-z-]*\):.*##/  make \1 \t/p' Makefile

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	  || { echo "error: $(PYTHON) is not Python 3.11, 3.12 or 3.13; name one that is: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@echo "Making the virtual environment $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@echo "Installing the packages pinned in constraints.txt (some minutes, a few GB where torch comes with CUDA) ..."
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt --editable '.[bench,workflow,test,docs]'
	@touch $@
	@echo "The environment is ready."
