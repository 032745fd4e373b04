# Every target sets up what it needs: a machine with python3 (3.11 or newer) and make is enough.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
WORKERS ?= 2

# tests, notebooks and pages import the package in processes by the dozen, which find its bytecode
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test lint format types notebooks pair docs bench dev dist lock versions-lowest versions-newest clean

help:
	@echo "make demo       fit a model, then 10,000 of them, and print what came out"
	@echo "make test       run the tests (ARGS='-k name' selects)"
	@echo "make lint       check style and formatting"
	@echo "make format     mend what can be mended"
	@echo "make types      check types"
	@echo "make notebooks  check that notebooks match their sources, and execute them"
	@echo "make docs       build the site in docs/_build/html, with notebooks that are executed"
	@echo "make pair       write the notebooks anew from their sources"
	@echo "make bench      time against the packages that are installed (RUN='W9 W1' selects)"
	@echo "make dist       build wheel and sdist, install them into a clean environment and run the demo there"
	@echo "make versions-lowest (or -newest)  the tests on the lowest versions that pyproject.toml allows"
	@echo "make lock       write requirements.lock, the versions that make dev installs, anew"
	@echo "make dev        set up for development, with the pre-commit hooks"

demo: $(STAMPS)/data
	$(BIN)/lmmjax demo

test: $(STAMPS)/test
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(STAMPS)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMPS)/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(STAMPS)/dev
	$(BIN)/pyright --pythonpath $(BIN)/python

SOURCES := $(wildcard notebooks/*.py)
EXECUTED := notebooks/executed/.done
CODE := $(shell find lmmjax -name '*.py')
HEADER := 2,/^\# ---$$/d

# the notebook must be what its source gives, and hold no outputs
notebooks: $(STAMPS)/docs
	@for source in $(SOURCES); do \
	  notebook=$${source%.py}.ipynb; \
	  test "$$(sed '$(HEADER)' $$source)" \
	    = "$$($(BIN)/jupytext --quiet --to py:percent --output - $$notebook | sed '$(HEADER)')" \
	    || { echo "$$notebook and $$source differ: edit the source, then run make pair"; exit 1; }; \
	  ! grep -q '"output_type"' $$notebook \
	    || { echo "$$notebook holds outputs: run make pair"; exit 1; }; \
	done
	@$(MAKE) --no-print-directory $(EXECUTED)

# what `make notebooks` has executed is not executed again
$(EXECUTED): $(SOURCES:.py=.ipynb) $(CODE) | $(STAMPS)/docs
	printf '%s\n' $(SOURCES:.py=.ipynb) | xargs -n 1 -P $(WORKERS) \
	  $(BIN)/jupyter nbconvert --log-level WARN --to notebook --execute --output-dir notebooks/executed
	@touch $@

docs: $(EXECUTED)
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

pair: $(STAMPS)/docs
	$(BIN)/jupytext --quiet --update --to ipynb $(SOURCES)
	$(BIN)/jupyter nbconvert --log-level WARN --clear-output --inplace $(SOURCES:.py=.ipynb)

bench: $(STAMPS)/data
	$(BIN)/python -m benchmarks run $(or $(RUN),W9 W1 W2) $(ARGS)

dev: $(STAMPS)/dev $(STAMPS)/test $(STAMPS)/docs
	$(BIN)/pre-commit install

# the wheel is built from the sdist, which is installed too
dist: $(STAMPS)/release
	rm -rf dist && $(BIN)/python -m build --outdir dist . > /dev/null
	$(BIN)/python -m twine check --strict dist/*.whl dist/*.tar.gz
	$(PYTHON) -m venv dist/clean
	dist/clean/bin/python -m pip install --quiet "$$(ls $(CURDIR)/dist/*.whl)[data]"
	cd dist && clean/bin/lmmjax demo
	dist/clean/bin/python -m pip install --quiet --force-reinstall --no-deps dist/*.tar.gz
	cd dist && clean/bin/python -c 'import lmmjax; print(lmmjax.__version__, lmmjax.__file__)'

# what the dependencies are in the environment of its own in which the tests run
versions-lowest: RESOLUTION := lowest-direct
versions-newest: RESOLUTION := highest
versions-lowest versions-newest: $(STAMPS)/release
	$(BIN)/uv venv --quiet --clear --python $(PYTHON) $(VENV)/versions
	$(BIN)/uv pip install --quiet --python $(VENV)/versions --resolution $(RESOLUTION) --editable '.[test]'
	$(BIN)/uv pip list --python $(VENV)/versions
	$(VENV)/versions/bin/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

lock: $(STAMPS)/release
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra dev --no-header pyproject.toml \
	  --output-file requirements.lock $(ARGS)

clean:
	rm -rf $(VENV) notebooks/executed docs/_build docs/_gallery docs/_plots docs/notebooks docs/project .pytest_cache .ruff_cache .hypothesis dist build

# a stamp an extra: a second run installs nothing until pyproject.toml changes; dev has all the others in it
# in the versions that pyproject.toml allows, of which dev has those of the lock
EXTRAS := data test docs dev release
$(EXTRAS:%=$(STAMPS)/%): $(STAMPS)/%: pyproject.toml requirements.lock | $(STAMPS)/pip
	$(BIN)/python -m pip install --quiet $(if $(filter dev,$*),--constraint requirements.lock) --editable '.[$*]'
	@touch $@ $(if $(filter dev,$*),$(addprefix $(STAMPS)/,data test docs))

$(STAMPS)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "lmmjax needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
	  || { echo "$(PYTHON) cannot make virtual environments: install its venv package (python3-venv)"; exit 1; }
	$(BIN)/python -m pip install --quiet --upgrade pip
	@mkdir -p $(STAMPS)
	@touch $@
