# make demo and make test do everything from a fresh clone; make help lists the rest.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DOCS_READY := $(VENV)/.ready-docs
VERSION := import sys; print(*sys.version_info[:2])
DEMO := output/demo
DEMO_CONFIG := --config-file configs/quick_start/shapes_gflv2.py
export DETECTRON2_DATASETS ?= datasets

.PHONY: help env demo test slow lint docs
.DEFAULT_GOAL := help

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST)

env: $(READY)  ## make .venv: pinned requirements, Detectron2, the package in editable mode

# A failure says why in one line; the stamp at the end makes an up-to-date env a no-op. The .venv of
# another Python version cannot be updated, and is replaced.
$(READY): requirements/runtime.txt requirements/dev.txt setup.py tools/install_detectron2.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null \
		|| { echo "make env: PYTHON=$(PYTHON) must be Python 3.10 or newer, got:" \
			"$$($(PYTHON) --version 2>&1 | head -n 1)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo "make env: $(PYTHON) has no venv module:" \
			"install it (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv $$([ "$$($(BIN)/python -c '$(VERSION)' 2>&1)" = \
		"$$($(PYTHON) -c '$(VERSION)')" ] || echo --clear) $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check \
		-r requirements/runtime.txt -r requirements/dev.txt \
		|| { echo "make env: cannot install the pinned requirements" \
			"(is there a network connection?)" >&2; exit 1; }
	$(BIN)/python tools/install_detectron2.py
	$(BIN)/python -m pip install --disable-pip-version-check --quiet \
		--no-build-isolation --no-deps --editable .
	@touch $@

demo: env  ## train GFLv2 on generated images, evaluate it, leave pictures in output/demo
	rm -rf $(DEMO)
	$(BIN)/python tools/train_net.py $(DEMO_CONFIG) train.output_dir=$(DEMO)
	$(BIN)/python tools/demo.py $(DEMO_CONFIG) --weights $(DEMO)/model_final.pth --output $(DEMO) \
		--input '$(DETECTRON2_DATASETS)/gfocal_shapes/val_200x192px_seed0_v*/images/*.jpg' \
		--max-images 12 --confidence 0.4 --sheet --distributions
	@echo "metrics.json, predictions.png and distributions.png are in $(DEMO). On unseen images:"
	@sed -n '/Evaluation results for bbox/,/^| *[0-9]/p' $(DEMO)/log.txt | grep '^|'

# A process a core, a thread each; the tests of a file stay together.
test: env  ## run the tests, but for the slow ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n auto --maxprocesses 4 --dist loadfile

slow: env  ## run the slow tests: whole trainings, processes that are killed, several processes
	$(BIN)/python -m pytest -m slow

lint: env  ## check style, formatting and types
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

docs: $(DOCS_READY)  ## build the site into output/site, without a warning
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# On demand, so that env stays small.
$(DOCS_READY): requirements/docs.txt $(READY)
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements/docs.txt
	@touch $@
