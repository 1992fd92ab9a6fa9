# make demo | make test | make test-all | make fuzz | make soak | make lint | make format
#
# Each target makes its own environment in .venv the first time (some minutes, about 2 GB) and is quick after that.

PYTHON ?= python3
VENV ?= .venv
# `make demo IMAGES=folder` segments your own images instead of the examples.
IMAGES ?=
# `make test ARGS="-k preprocessing"` runs part of the tests.
ARGS ?=
# `make fuzz CASES=5000 MINUTES=10 JOBS=2`; it goes on where the last one stopped (docs/contributing.md).
CASES ?= 50000
MINUTES ?= 600
JOBS ?= 1
# `make soak PREDICTIONS=2000 SIGNALS=5`
PREDICTIONS ?= 20000
SIGNALS ?= 50

BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: help demo test test-all fuzz soak lint format

help:
	@sed -n '1,3s/^# *//p' Makefile

demo: $(VENV)/.installed
	HF_HUB_OFFLINE=1 $(BIN)/python examples/demo.py $(if $(IMAGES),"$(IMAGES)")

# Two test processes share the cores better than two threads of one network do.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadgroup

# The unit suite, under five minutes on two cores.
test: $(VENV)/.installed-dev
	$(PYTEST) -m "not slow" $(ARGS)

# And what takes longer: packaging, killed runs, many processes, memory over thousands of images.
test-all: $(VENV)/.installed-dev
	$(PYTEST) $(ARGS)

# Damaged files of every kind: each must end in a prediction or in one line.
fuzz: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz --cases $(CASES) --minutes $(MINUTES) --jobs $(JOBS) $(ARGS)

# Thousands of predictions in a row, several at once, and interrupted ones.
soak: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 CONDSEG_SOAK=$(PREDICTIONS) CONDSEG_SIGNALS=$(SIGNALS) \
		$(BIN)/python -m pytest tests/test_soak.py tests/test_signals.py $(ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The stamps are written last, so that an installation that broke off is begun again.
$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.python pyproject.toml constraints.txt
	@echo "Installing condseg_sdk into $(VENV) ..."
	@$(INSTALL) --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.python pyproject.toml constraints.txt
	@echo "Installing condseg_sdk with [train,dev] into $(VENV) ..."
	@$(INSTALL) --editable '.[train,dev]'
	@touch $(VENV)/.installed $@
