# Python 3.11 is all it takes; everything is installed into .venv, pinned by constraints.txt.
PYTHON ?= python3.11
VENV ?= .venv
# Where NNI has no wheel (Linux on ARM): make setup EXTRAS=dev CONSTRAINTS=constraints.txt
EXTRAS ?= dev,nas
CONSTRAINTS ?= constraints-nas.txt
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup setup-nas test demo lint laws kills wheel clean help

help:  ## these lines
	@sed -n 's/^\([a-z-]*\):.*## /\1: /p' Makefile

setup: $(STAMP)  ## virtual environment with automc, NNI and the development tools, pinned

$(STAMP): pyproject.toml setup.py $(CONSTRAINTS) scripts/install
	PYTHON="$(PYTHON)" scripts/install $(VENV) $(CONSTRAINTS) -e '.[$(EXTRAS)]'
	touch $@

test: setup  ## every test, in two processes; those that need data run where AUTOMC_DATA names the folder
	$(BIN)/python -m pytest -n 2 --dist loadfile

demo: setup  ## the main job on the embedded digits: three to five minutes on two cores
	$(BIN)/automc demo $(if $(RUN),--run $(RUN))

lint: setup  ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy automc

laws: setup  ## break each law of the design on purpose and see its test go red
	$(BIN)/python tests/laws/run.py

kills: setup  ## SIGKILL at ten moments of a digits run, each resumed: about ten minutes
	AUTOMC_KILLS=1 $(BIN)/python -m pytest tests/e2e/test_kill_resume.py

wheel: setup  ## dist/automc-*.whl
	rm -rf dist build
	$(BIN)/python -m build --wheel --no-isolation

clean:  ## everything made, except runs/
	rm -rf $(VENV) dist build *.egg-info .pytest_cache .mypy_cache .ruff_cache
