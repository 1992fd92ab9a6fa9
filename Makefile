# make demo | make test | make test-all | make test-isa | make fuzz | make soak | make lint | make format | make site | make links
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

# opencv-python needs X11 and OpenGL libraries, which servers and containers lack and only root can install. Where its
# import fails, the same version of opencv-python-headless takes its place. Both install the folder cv2: away with both.
define WORKING_OPENCV
@$(BIN)/python -c 'import cv2' 2>/dev/null || { \
	version=$$($(BIN)/python -c 'from importlib.metadata import version; print(version("opencv-python"))') && \
	$(BIN)/python -m pip uninstall --quiet --yes opencv-python opencv-python-headless 2>/dev/null && \
	$(INSTALL) "opencv-python-headless==$$version" && $(BIN)/python -c 'import cv2' && \
	echo "opencv-python $$version lacks libraries of this system: opencv-python-headless $$version is installed instead"; }
endef

.PHONY: help demo test test-all test-isa fuzz soak lint format site site-serve links

help:
	@sed -n '1,3s/^# *//p' Makefile

demo: $(VENV)/.installed
	$(WORKING_OPENCV)
	HF_HUB_OFFLINE=1 $(BIN)/python examples/demo.py $(if $(IMAGES),"$(IMAGES)")

# A module's tests stay in one process, so that what they share is made once.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadscope
# Two test processes share the cores better than two threads of one network do.
test test-all: export OMP_NUM_THREADS = 1

# The unit suite, under five minutes on two cores.
test: $(VENV)/.installed-dev
	$(WORKING_OPENCV)
	$(PYTEST) -m "not slow" $(ARGS)

# And what takes longer: packaging, killed runs, many processes, memory over thousands of images, other processors.
test-all: $(VENV)/.installed-dev
	$(WORKING_OPENCV)
	$(PYTEST) $(ARGS)
	$(MAKE) test-isa

# The tests that compute, as other processors would: with fewer vector instructions, which round differently, and with
# one and two threads. On Arm the variables mean nothing.
NUMERIC := tests/models tests/export tests/evaluation tests/metrics tests/training/test_augmentation.py \
	tests/training/test_degradation.py tests/training/test_losses.py tests/data/test_cache.py tests/test_field_of_view.py \
	$(addprefix tests/test_,$(addsuffix .py,predictor preprocessing segmentation tiling))
SSE := ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_ENABLE_INSTRUCTIONS=SSE4_2 OPENCV_CPU_DISABLE=AVX512-ICL,AVX512-SKX,AVX2,FP16,FMA3,AVX
AVX2 := ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 OPENCV_CPU_DISABLE=AVX512-ICL,AVX512-SKX
AVX512 := ONEDNN_MAX_CPU_ISA=AVX512_CORE

test-isa: $(VENV)/.installed-dev
	$(WORKING_OPENCV)
	@failed=0; for processor in "$(SSE)" "$(AVX2)" "$(AVX512)"; do for threads in 1 2; do \
		echo "== $$processor OMP_NUM_THREADS=$$threads"; \
		env $$processor OMP_NUM_THREADS=$$threads $(PYTEST) --quiet -m "not slow" $(NUMERIC) $(ARGS) || failed=1; \
	done; done; exit $$failed

# Damaged files of every kind: each must end in a prediction or in one line.
fuzz: $(VENV)/.installed-dev
	$(WORKING_OPENCV)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz --cases $(CASES) --minutes $(MINUTES) --jobs $(JOBS) $(ARGS)

# Thousands of predictions in a row, several at once, and interrupted ones.
soak: $(VENV)/.installed-dev
	$(WORKING_OPENCV)
	OMP_NUM_THREADS=1 CONDSEG_SOAK=$(PREDICTIONS) CONDSEG_SIGNALS=$(SIGNALS) \
		$(BIN)/python -m pytest tests/test_soak.py tests/test_signals.py $(ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The documentation, with the pages that are made from the package: build/site/index.html. A warning is an error.
site site-serve: export NO_MKDOCS_2_WARNING = true
site: $(VENV)/.installed-docs
	$(WORKING_OPENCV)
	$(BIN)/mkdocs build --quiet

site-serve: $(VENV)/.installed-docs
	$(WORKING_OPENCV)
	$(BIN)/mkdocs serve

# Addresses of other hosts, which needs a network (lychee.toml). Links between pages are checked by
# `make site`.
WITH_LINKS := README.md CHANGELOG.md NOTICE pyproject.toml mkdocs.yml weights_manifest.json docs condseg_sdk examples tools benchmarks

links: $(VENV)/.installed-dev
	$(BIN)/lychee --verbose --no-progress $(WITH_LINKS)

# The stamps are written last, so that an installation that broke off is begun again.
$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.python pyproject.toml constraints.txt
	@echo "Installing condseg_sdk into $(VENV) ..."
	@$(INSTALL) --editable .
	@touch $@

EXTRAS := train,app,dicom,openvino,ray,dev
$(VENV)/.installed-dev: $(VENV)/.python pyproject.toml constraints.txt
	@echo "Installing condseg_sdk with [$(EXTRAS)] into $(VENV) ..."
	@$(INSTALL) --editable '.[$(EXTRAS)]'
	@touch $(VENV)/.installed $@

$(VENV)/.installed-docs: $(VENV)/.installed-dev
	@echo "Installing the extra [docs] into $(VENV) ..."
	@$(INSTALL) --editable '.[docs]'
	@touch $@
