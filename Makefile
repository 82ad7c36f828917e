# make demo   the whole of feie on data.example, from nothing, offline but for pip
# make test   set up and run the tests
# make lint   ruff, import-linter, mypy
# Options: VENV=dir of the virtual environment, INSTALL=what pip installs (the source by default),
# JOBS=processes that run the tests (2 by default).

SHELL  := /bin/bash
VENV   ?= .venv
INSTALL ?= .
JOBS   ?= 2
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null \
	&& { echo $$p; break; }; done)
BIN    := $(VENV)/bin

# OpenCV for desktops needs libraries that slim machines lack: its other build takes its place.
define usable_opencv
@$(BIN)/python -c 'import cv2' 2>/dev/null || { echo "== OpenCV without windows, for want of desktop libraries"; \
	$(BIN)/python -m pip uninstall --quiet --yes opencv-python; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check opencv-python-headless; }
endef

.PHONY: demo test lint clean

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "feie needs Python 3.11 to 3.14 on the path, or PYTHON=/path/to/it"; exit 2; }
	@echo "== making a virtual environment in $(VENV) with $(PYTHON)"
	$(PYTHON) -m venv $(VENV)

# Sources are installed anew whenever one changes, so that what runs is what stands here.
SOURCES := pyproject.toml setup.py $(shell find __init__.py cli.py pipeline features heads -type f -not -name '*.pyc' 2>/dev/null)

$(VENV)/.feie-installed: $(BIN)/python $(SOURCES)
	@echo "== installing feie and what it needs into $(VENV) (a minute or two)"
	@rm -rf build
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(INSTALL)"
	$(usable_opencv)
	@touch $@

$(VENV)/.feie-dev-installed: $(BIN)/python $(SOURCES)
	@echo "== installing feie and its test tools into $(VENV) (a minute or two)"
	@rm -rf build
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(INSTALL)[dev]"
	$(usable_opencv)
	@touch $@ $(VENV)/.feie-installed

demo: $(VENV)/.feie-installed
	@echo "== feie demo: extract, train-head and evaluate on data.example, into .demo/"
	@rm -rf .demo
	$(BIN)/feie demo --data data.example --out .demo

test: $(VENV)/.feie-dev-installed
	@echo "== the tests (those marked 'shared' skip where ../shared is absent)"
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(PYTEST_OPTIONS)

lint: $(VENV)/.feie-dev-installed
	@echo "== ruff, import-linter, mypy --strict"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@links=$$(mktemp -d) && ln -s "$(CURDIR)" $$links/feie && trap "rm -rf $$links" EXIT && \
	PYTHONPATH=$$links $(BIN)/lint-imports --no-cache && \
	MYPYPATH=$$links $(BIN)/mypy --config-file pyproject.toml -m feie -m feie.cli \
		-p feie.pipeline -p feie.heads -p feie.features

clean:
	rm -rf .venv .demo build dist *.egg-info
