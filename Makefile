# `make demo` and `make test` need nothing done before them: each sets up .venv when it must.
PYTHON ?= python3
BIN := $(CURDIR)/.venv/bin
export PATH := $(BIN):$(PATH)
# Processes that share the tests: see tests/conftest.py.
TESTERS ?= 2
# Frozen networks must not reach for usage statistics or update notices.
export YOLO_OFFLINE := true
export DVC_NO_ANALYTICS := true

.PHONY: setup demo test lint bench clean

setup: .venv/ready

.venv/ready: setup.cfg pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("emocache needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv
	@echo 'Fetching the packages into .venv: about 7 GB once installed. pip says nothing for some minutes.'
	$(BIN)/python -m pip install --disable-pip-version-check -q -e '.[dev]'
	@# The usual OpenCV wheel wants libGL, which a bare server lacks; the headless one does not.
	@$(BIN)/python -c 'import cv2' 2>/dev/null || { \
	    echo 'OpenCV finds no libGL here: taking its headless build'; \
	    $(BIN)/python -m pip uninstall --disable-pip-version-check -q -y opencv-python; \
	    $(BIN)/python -m pip install --disable-pip-version-check -q --force-reinstall --no-deps opencv-python-headless; }
	touch .venv/ready

demo: setup
	$(BIN)/emocache demo

test: setup
	$(BIN)/python -m pytest -n $(TESTERS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup
	@for file in benchmarks/*.py; do $(BIN)/python $$file || exit 1; done

clean:
	rm -rf features results data/demo
