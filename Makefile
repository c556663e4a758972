# make demo       install, then run the whole pipeline on made-up chest phantoms (two to six minutes on two cores)
# make test       install, then every test that is not slow (three to five minutes on two cores)
# make test-fast ROOM=gan  those of one room (tests/gan) or script (ROOM=train_gan)
# make test-slow  the slow tests (20 minutes on two cores)
# make campaign MINUTES=60  kill the scripts and mutate their inputs, on one thread; the same command goes on
# make simulations  do the intervals of cross-fitted studies hold the truth? an hour or more on one thread; goes on
# make lint       ruff, types (mypy), layers of imports (import-linter, tests/test_layering.py)
# make docs       write docs/help/ anew from the scripts' --help
#
# Uses uv where it is on PATH, else pip. On a machine without a GPU,
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
# installs PyTorch's CPU build (about 1 GB) instead of the CUDA build (about 6 GB).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH_INDEX ?=

UV := $(shell command -v uv 2>/dev/null)
ifeq ($(UV),)
  CREATE := $(PYTHON) -m venv $(VENV)
  INSTALL := $(BIN)/python -m pip install --disable-pip-version-check
else
  CREATE := uv venv --allow-existing --python $(PYTHON) $(VENV)
  # uv leaves compiling to the first start, and compiles at every start where PYTHONDONTWRITEBYTECODE is set.
  INSTALL := uv pip install --compile-bytecode --python $(BIN)/python
endif

.PHONY: setup demo test test-fast room test-slow campaign simulations lint docs

setup: $(VENV)/.installed

$(VENV)/.installed: requirements.txt requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: Python 3.11 or later is needed; try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || $(CREATE)
	@test -z "$(TORCH_INDEX)" || $(INSTALL) torch torchvision --index-url $(TORCH_INDEX)
	$(INSTALL) -r requirements-dev.txt
	@touch $@

demo: setup
	$(BIN)/python src/run_pipeline.py --demo

test: setup
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile

# Rooms with tests: folders below tests/; scripts: files tests/test_<script>.py.
ROOMS := $(sort $(foreach file,$(wildcard tests/*/test_*.py tests/*/*/test_*.py),$(word 2,$(subst /, ,$(file)))))
SCRIPTS := $(patsubst tests/test_%.py,%,$(sort $(wildcard tests/test_*.py)))

room:
	@test -n "$(filter $(ROOMS) $(SCRIPTS),$(ROOM))" || \
	  { echo 'error: ROOM=$(ROOM) names no tests; rooms: $(ROOMS); scripts: $(SCRIPTS)'; exit 1; }

test-fast: room setup
	$(BIN)/python -m pytest -m "not slow" -n 2 $(wildcard tests/$(ROOM) tests/test_$(ROOM).py)

test-slow: setup
	$(BIN)/python -m pytest -m slow -n 2

MINUTES ?= 60
CAMPAIGN_DIR ?= $(HOME)/.cache/campaign

campaign: setup
	PYTHONPATH=src:tests OMP_NUM_THREADS=1 $(BIN)/python -P -m campaign --out $(CAMPAIGN_DIR) --minutes $(MINUTES) --retry

SIMULATIONS ?= $(HOME)/.cache/simulations.json

simulations: setup
	PYTHONPATH=src:tests OMP_NUM_THREADS=1 $(BIN)/python -P -m simulations --out $(SIMULATIONS)

lint: setup
	$(BIN)/python -m ruff check src tests docs
	$(BIN)/python -m mypy
	PYTHONPATH=src $(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/test_layering.py

docs: setup
	$(BIN)/python docs/write_docs.py
