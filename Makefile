# Both `make run` and `make test` first make .venv, if it is missing or requirements.lock has changed.
PYTHON ?= python3
# Written last: an interrupted installation does not look finished, and the next call takes it up again.
INSTALLED := .venv/.installed
DOWNLOADER := .venv-download/.installed
SUBMITTER := .venv-slurm/.installed

.PHONY: help run test archive test-slurm test-browser

help:  ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(INSTALLED)  ## rebuild every table and figure that config/config.yaml names, into results/
	@.venv/bin/python -m clipdr.unlock
	.venv/bin/snakemake --cores all

test: $(INSTALLED) $(DOWNLOADER)  ## run the tests, two files at a time
	.venv/bin/python -m pytest --numprocesses 2 --dist loadfile

archive: $(INSTALLED)  ## put the tables, and all that they rest on, into results/archive-mini.tar.gz
	.venv/bin/snakemake --cores all results/archive-mini.tar.gz

test-slurm: $(INSTALLED) $(SUBMITTER)  ## run the chain as jobs of a SLURM cluster on this machine: Debian, as root
	.venv/bin/python -m pytest -m slurm tests/slurm

test-browser: $(INSTALLED)  ## open the report in Chromium, which is installed where it is missing: Debian, as root
	.venv/bin/python -m pytest -m browser tests/browser

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info[:2] != (3, 11))" 2>/dev/null || \
	{ echo "error: '$(PYTHON)' is not Python 3.11, which clipdr needs; say where it is: make $(MAKECMDGOALS) PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --requirement requirements.lock
	.venv/bin/python -m pip install --no-deps --no-build-isolation --editable .
	@touch $@

$(DOWNLOADER): requirements-download.lock | $(INSTALLED)
	.venv/bin/python -m venv .venv-download
	.venv-download/bin/python -m pip install --requirement requirements-download.lock
	@touch $@

$(SUBMITTER): requirements-slurm.lock | $(INSTALLED)
	.venv/bin/python -m venv .venv-slurm
	.venv-slurm/bin/python -m pip install --requirement requirements-slurm.lock
	@touch $@
