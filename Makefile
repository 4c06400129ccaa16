# make demo   install what this machine can use, and serve real models; ARGS="--http-port 9000" has flags of triune demo
# make test   install, check and test everything
PYTHON ?= python3
BIN := .venv/bin
comma := ,
SYSTEM := $(shell uname -s)-$(shell uname -m)
# OpenVINO drives the matrix unit of Intel CPUs; MLX and Core AI's library come for these two alone.
EXTRAS := coreml$(comma)engine$(if $(filter %-x86_64,$(SYSTEM)),$(comma)openvino)$(if $(filter Linux-x86_64 Darwin-arm64,$(SYSTEM)),$(comma)coreai$(comma)mlx)
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
PROCESSES := $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
# Tests with generated examples that stand outside of tests/property.
LAWS := $(addprefix tests/,unit/engine/test_moving.py unit/zoo/test_torch_checkpoint.py protocol/test_http_fuzz.py \
	protocol/test_openapi.py)
TYPES := $(BIN)/pyright
DOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

.PHONY: demo test check lint docs pictures conformance torch bench clean

demo: .venv/demo
	$(BIN)/triune demo $(ARGS)

# One process of tests more than there are cores: a third of the time a test waits, for a timeout or what it started.
# Two more were slower on two cores: each process prepares what its tests share.
# Those of a file may run in several, since files differ much in how long they take. pyright and mkdocs, which use one
# core each, run beside them, and what they say comes at the end.
# Where bytecode is not written, all the processes that tests start would compile Triune anew. The threads that numpy
# starts when it is imported cost each of them a fifth of that import's time, and the products of tests are small.
test: export PYTHONDONTWRITEBYTECODE =
test: export OPENBLAS_NUM_THREADS = 1
test: lint .venv/develop
	@said=$$(mktemp); { $(TYPES) && $(DOCS); } >$$said 2>&1 & beside=$$!; \
	$(BIN)/python -m pytest --numprocesses $(PROCESSES) --maxprocesses 4 --dist worksteal; tests=$$?; \
	wait $$beside; beside=$$?; cat $$said; rm $$said; exit $$((tests | beside))

check: lint
	$(TYPES)

lint: .venv/develop
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

# The conformance suites, other generated cases and the demo whole (about an hour), and the laws with four times as many
# examples, by new seeds; `make test`
# runs fixed samples of these. With PyTorch, which `make torch` installs, almost twice as many of coremltools' own tests
# run, and it takes another hour.
conformance: .venv/develop
	$(BIN)/python -m pytest --whole tests/conformance tests/property $(LAWS) tests/protocol/test_readme.py
	$(BIN)/python -m pytest --whole -m sampled tests/unit tests/contract

torch: .venv/develop
	$(PIP) --group torch

docs: .venv/develop
	$(DOCS)

# The pictures of the first page, out of real commands.
pictures: .venv/develop
	$(BIN)/python docs/pictures/make.py

clean:
	rm -rf .venv site build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache

.venv/bin/python:
	$(PYTHON) -m venv .venv
	$(PIP) --upgrade 'pip>=25.1'

.venv/demo: pyproject.toml hatch_build.py | .venv/bin/python
	@echo "Installing Triune and what this machine can use into .venv (about a minute)"
	$(PIP) --editable '.[$(EXTRAS)]' --group demo
	@touch $@

.venv/develop: pyproject.toml hatch_build.py | .venv/bin/python
	@echo "Installing Triune with its tests and tools into .venv (about two minutes)"
	$(PIP) --editable '.[$(EXTRAS)]' --group demo --group check --group test --group docs
	@touch $@
