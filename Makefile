.DEFAULT_GOAL := help
.NOTPARALLEL:
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c

PYTHON ?= python3
TORCH_INDEX ?=
IMAGE ?= foldserve
BASE ?= docker.io/library/python:3.11-slim-bookworm
BENCH ?= benchmarks/engine.py
PYTEST_ARGS ?=
# Each takes up to 3 GiB and starts processes of its own.
PROCESSES ?= $(shell (( $$(nproc) > 3 )) && echo 3 || echo 2)
# In the order of their names, which begins with the longest (tests/architectures) and ends with short ones: xdist's
# own order, by the number of tests, leaves one process with a long file of few tests at the end.
IN_FILES := --dist loadfile --no-loadscope-reorder
SOAK_SECONDS ?= 600
# The end-to-end tests of what a container could change: processes, signals, memory, files, the network.
# Not test_drain: in the namespaces that stand in for Docker a handshake may still end while the socket closes.
OF_THE_IMAGE ?= $(patsubst %,tests/e2e/test_%.py,bad_input hangs infer inspection killed lifecycle predict \
    protocol_routes signals versions)
export TORCH_INDEX IMAGE BASE

VENV := .venv
BIN := $(VENV)/bin
SERVES := $(VENV)/.installed-serve
TESTS := $(VENV)/.installed-test

.PHONY: help serve test drains soak lint bench image clean FORCE

help:
	@echo 'make serve   serve the shipped digits model at 127.0.0.1:8000 (FOLDSERVE_* in the environment changes that)'
	@echo 'make test    lint, types, build the image, every test, and end to end once more against the image'
	@echo 'make drains  forty shutdowns under load, of which none may lose a request'
	@echo 'make soak    ten minutes of mixed good and bad requests: every one answered, memory flat (SOAK_SECONDS=...)'
	@echo 'make lint    ruff and mypy'
	@echo 'make bench   the engine against other engines, for hours; one of the other scripts: BENCH=benchmarks/NAME.py'
	@echo 'make image   build the container image: with docker where a daemon answers, else with buildah'
	@echo 'make clean   remove .venv, .clients and every cache; leaves the image'
	@echo
	@echo 'Each target first makes .venv and installs what it needs. Variables:'
	@echo '  PYTHON=python3.12     the Python to make .venv with, 3.11 or newer (default: python3)'
	@echo '  TORCH_INDEX=ADDRESS   a package index to take torch from, in .venv and in the image. Without it pip takes'
	@echo '                        what it is configured with; on Linux that is usually the CUDA build, of several'
	@echo '                        gigabytes. The "Start locally" page of PyTorch names an index for the CPU build and'
	@echo '                        one for each CUDA version. Given later, it replaces the torch that is installed.'
	@echo '  IMAGE=foldserve       the name of the image'
	@echo '  BASE=NAME             the image it is built on (default: $(BASE))'
	@echo '  PYTEST_ARGS=...       more arguments for pytest'
	@echo '  PROCESSES=2           how many run the tests (default: 3 on four cores or more, else 2)'
	@echo '  SOAK_SECONDS=600      how long make soak takes'
	@echo '  OF_THE_IMAGE=tests/e2e   every end-to-end test against the image, not only those of what a container could change'

serve: $(SERVES)
	@exec $(BIN)/foldserve serve

test: lint
	@scripts/debian-packages browser image
	@scripts/image
	$(BIN)/python -m pytest -m 'image or not image' -n $(PROCESSES) $(IN_FILES) $(PYTEST_ARGS)
	FOLDSERVE_TEST_IMAGE=$(IMAGE) $(BIN)/python -m pytest $(OF_THE_IMAGE) -n $(PROCESSES) $(IN_FILES)
	@echo 'make test: lint, types, the image and every test passed'

drains: $(TESTS)
	FOLDSERVE_TEST_DRAINS=20 $(BIN)/python -m pytest tests/e2e/test_drain.py $(PYTEST_ARGS)

soak: $(TESTS)
	$(BIN)/python -m tests.soak --seconds $(SOAK_SECONDS)

lint: $(TESTS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(TESTS)
	@[[ -n '$(BENCH)' ]] || { echo 'benchmarks/ holds no script; nothing was measured' >&2; exit 1; }
	@for script in $(BENCH); do echo "== $$script"; $(BIN)/python "$$script"; done

image:
	@scripts/debian-packages image
	@scripts/image

clean:
	rm -rf $(VENV) .clients build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .schemathesis .coverage
	find service tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	    || { echo 'foldserve needs Python 3.11 or newer, and $(PYTHON) is not: make PYTHON=python3.12 ...' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	    || { echo '$(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv' >&2; exit 1; }
	@echo 'Making $(VENV)'
	@$(PYTHON) -m venv --clear $(VENV)

# Changes only when TORCH_INDEX is given and is another than last time.
$(VENV)/.wanted-torch-index: FORCE | $(BIN)/python
	@[[ -e $@ && ( -z "$$TORCH_INDEX" || "$$TORCH_INDEX" == "$$(<$@)" ) ]] || echo "$$TORCH_INDEX" >$@

$(SERVES): pyproject.toml constraints.txt $(VENV)/.wanted-torch-index
	@scripts/install $(VENV)
	@touch $@

$(TESTS): pyproject.toml constraints.txt tests/architectures/requirements.txt $(VENV)/.wanted-torch-index
	@scripts/install $(VENV) test
	@touch $(SERVES) $@
