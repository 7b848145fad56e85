PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
TORCH  := 2.13.0
ARGS   ?=
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# MPLBACKEND is never set here: kernels inherit it, and Agg leaves notebooks without figures.

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-browser lab teach figures report lint format types lock clean

help:            ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

# A Python without ensurepip makes a venv without pip, which another pip then fills.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV) 2>/dev/null || { rm -rf $(VENV); \
	  $(PYTHON) -m venv --without-pip $(VENV) && \
	  $(PYTHON) -m pip --python $(VENV)/bin/python install -q pip setuptools; }

$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	@if [ "$$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null 2>&1 && \
	  [ -z "$$PIP_FIND_LINKS$$PIP_EXTRA_INDEX_URL$$PIP_INDEX_URL$$($(BIN)/python -m pip config get global.find-links 2>/dev/null)" ]; then \
	  echo "note: no NVIDIA driver seen; torch from the default index brings about 4 GB of CUDA libraries."; \
	  echo "      To avoid that, set PIP_EXTRA_INDEX_URL to PyTorch's CPU wheel index, or PIP_FIND_LINKS to a folder with a CPU wheel."; fi
	@echo "Installing into $(VENV): a few minutes ..."
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[lab]'
	$(BIN)/python -m pip check
	@touch $@

setup: $(STAMP)  ## create .venv and install everything

demo: $(STAMP)   ## find and repair guilty neurons on embedded data, offline; writes a report
	$(BIN)/carelab demo $(ARGS)

test: lint types ## lint, types, unit tests, doctests and every notebook in its smoke profile
	$(BIN)/python -m pytest -q -n 2 --dist worksteal $(ARGS)
	$(BIN)/python -m pytest -q --nbval-lax --nbval-current-env --nbval-cell-timeout=300 notebooks/00_quickstart.ipynb

# Chromium comes from the system; where there is none and apt may bring it, it is installed. Without
# a way to the archive apt gives up soon, and asks nothing.
APT := DEBIAN_FRONTEND=noninteractive apt-get -qq -o Acquire::Retries=1 -o Acquire::http::Timeout=20
test-browser: $(STAMP) ## the explorer in JupyterLab and Voila, in a real browser (chromium)
	@test -n "$$CHROMIUM" || command -v chromium >/dev/null || command -v google-chrome >/dev/null || \
	  { command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ] && $(APT) update && \
	    $(APT) install -y --no-install-recommends chromium fonts-dejavu-core; } || \
	  echo "note: no chromium, and apt cannot bring it; the browser tests will be skipped."
	@$(BIN)/python -c 'import playwright' 2>/dev/null || \
	  $(BIN)/python -m pip install -q -c constraints.txt -e '.[browser]' || \
	  echo "note: playwright cannot be installed; the browser tests will be skipped."
	$(BIN)/python -m pytest -q -rs $(ARGS) tests/browser

lab: $(STAMP)    ## JupyterLab on the notebooks
	$(BIN)/jupyter lab --KernelManager.transport_encryption=auto $(ARGS) notebooks

# A page that nobody has open any more gives its memory back after five minutes.
teach: $(STAMP)  ## the teaching notebooks as pages without code, served on this machine only
	JUPYTER_PATH=notebooks $(BIN)/voila --Voila.ip=127.0.0.1 --template=offline --classic-tree \
	  --KernelManager.transport_encryption=auto --MappingKernelManager.cull_interval=60 \
	  --MappingKernelManager.cull_idle_timeout=300 $(ARGS) notebooks/teaching

figures: $(STAMP) ## recompute the committed figures; finished runs are kept
	$(BIN)/carelab figures $(ARGS)

report: $(STAMP) ## one page of all committed results, readable offline
	$(BIN)/carelab report $(ARGS)

lint: $(STAMP)   ## style and format of code and notebooks, and that notebooks are stripped
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@for notebook in $(wildcard notebooks/*.ipynb notebooks/*/*.ipynb); do \
	  $(BIN)/nbstripout --verify "$$notebook" || exit 1; done

format: $(STAMP) ## rewrite code and notebooks in the house format, and strip the notebooks
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	@for notebook in $(wildcard notebooks/*.ipynb notebooks/*/*.ipynb); do \
	  $(BIN)/nbstripout "$$notebook" || exit 1; done

types: $(STAMP)  ## static types
	$(BIN)/mypy

# Without a folder of wheels: a wheel of this machine would fork the pins by platform. torch's CUDA
# packages are left out, since torch itself asks for them where they are wanted.
lock: $(BIN)/python ## rewrite constraints.txt for Python 3.11+ on Linux, macOS and Windows
	$(BIN)/python -m pip install -q uv
	@printf 'torch==$(TORCH)\n' > $(VENV)/torch-pin.txt
	UV_FIND_LINKS= $(BIN)/uv pip compile -q --upgrade --universal --python-version 3.11 --no-header \
	  --no-annotate --strip-extras -c $(VENV)/torch-pin.txt --extra lab --extra browser pyproject.toml \
	  -o $(VENV)/lock.txt
	grep -vE '^(nvidia-|cuda-|triton)' $(VENV)/lock.txt > constraints.new
	mv constraints.new constraints.txt

clean:           ## remove the environment, the executed notebooks and the caches
	rm -rf $(VENV) .runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
