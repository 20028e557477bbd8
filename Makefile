# make demo    environment, install, phantom study, the main job on it
# make test    environment, install, all tests
# make image   the container image; WEIGHTS=FILE puts the weights into it (docs/container.md)
# TORCH=cuda   a CUDA build of torch instead of the CPU build
# WORKERS=0    the tests one after another, instead of in a process for each core, four at most

PYTHON ?= $(shell command -v python3.11 || command -v python3)
TORCH ?= cpu
TORCH_VERSION := 2.13.0
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
DEMO ?= demo-output
TESTS ?= not slow
WORKERS ?= auto

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-$(TORCH)

.PHONY: demo test lint bench clean image base-image test-container test-mhubio-main

demo: $(STAMP)
	$(BIN)/oncofm demo "$(DEMO)"

test: $(STAMP)
	$(BIN)/pytest -m "$(TESTS)" --numprocesses=$(WORKERS) --maxprocesses=4 --dist=loadfile $(PYTEST_ARGS)

test-mhubio-main: $(STAMP)
	@utils/test_mhubio_main.sh -m "$(TESTS)" $(PYTEST_ARGS)

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright

test-container: $(STAMP)
	$(BIN)/pytest -m container $(PYTEST_ARGS) tests/container

# The settings of utils/image/build.sh: WEIGHTS, WEIGHTS_SHA256, IMAGE, BASE_IMAGE, DOCKER ...
image: export TORCH := $(TORCH)
image: export PYTHON := $(PYTHON)
image:
	utils/image/build.sh

base-image:
	utils/image/base_image.sh

clean:
	rm -rf $(VENV) "$(DEMO)"

# pip first looks for a CPU wheel where the site keeps its wheels (find-links), then asks
# PyTorch's own CPU index; the CUDA build is the one that the configured package index has (a CPU
# wheel in find-links would win over it, so pip is given a folder without wheels instead).
ifeq ($(TORCH),cuda)
INSTALL_TORCH = { $(BIN)/pip uninstall --quiet --yes torch 2>/dev/null; \
	PIP_FIND_LINKS=$(CURDIR)/docs $(BIN)/pip install --quiet "torch==$(TORCH_VERSION)"; }
else
INSTALL_TORCH = $(BIN)/pip install --quiet --no-deps --no-index "torch==$(TORCH_VERSION)" 2>/dev/null \
	|| $(BIN)/pip install --quiet --no-deps --index-url $(TORCH_CPU_INDEX) "torch==$(TORCH_VERSION)"
endif

$(STAMP): requirements.lock pyproject.toml
	@echo "Setting up $(VENV) (once, a few minutes) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@rm -f $(VENV)/.installed-*
	@$(INSTALL_TORCH)
	@$(BIN)/pip install --quiet --no-deps --require-hashes -r requirements.lock
	@$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
