# make figures   every notebook through papermill; results in figures/<data>/, its report is index.html
# make verify    are the tables in figures/demo/ the committed ones? after make figures, on any machine; FOLDER=figures/paper
# make plan      what would be trained for them, and how long it would take; CATALOG=paper for the paper's bill
# make test      lint, quick unit tests, and the notebooks that take little time
# make unit      the quick unit tests alone
# make test-all  all tests and notebooks: half an hour or more where nothing is trained yet
# make bench     every comparison of notebook 13 in full, into figures/performance/ (an hour); ONLY="loss peers" some
# Any other variable is passed on to every notebook: make figures CATALOG=photos.csv PRESET=compact
# ONLY="03 04" runs some notebooks; PYTHON=python3.12 chooses the interpreter of the environment.

PYTHON ?= python3
VENV ?= .venv
ONLY ?=
FOLDER ?= figures/demo
RUN := $(VENV)/bin/python
# what stands on the command line, each word in quotes: values may hold blanks
GIVEN = $(foreach name,$(.VARIABLES),$(if $(filter command,$(origin $(name))),$(name)))
quoted = '$(subst ','\'',$(1))'
PARAMETERS = $(foreach name,$(filter-out PYTHON VENV ONLY,$(GIVEN)),$(call quoted,$(name)=$(value $(name))))
export MPLBACKEND ?= agg
export NO_ALBUMENTATIONS_UPDATE = 1
# some containers set it: each process would compile torch anew, twenty seconds of it
unexport PYTHONDONTWRITEBYTECODE

.PHONY: figures verify plan bench unit test test-all notebooks lock clean help

help:
	@sed -n '/^$$/q; s/^# //p' Makefile

# The stamp carries the lock's content: installed once, and again when the lock or package changes.
$(VENV)/installed: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	# Python compiles what is used at its first import, a fraction of what is installed
	$(RUN) -m pip install --disable-pip-version-check --progress-bar on --no-compile -r requirements.lock
	$(RUN) -m pip install --disable-pip-version-check --no-deps -e .
	touch $@

figures: $(VENV)/installed
	$(RUN) -m miewid_core figures $(PARAMETERS) $(if $(ONLY),--only $(ONLY))

verify: $(VENV)/installed
	$(RUN) -m miewid_core verify $(call quoted,$(FOLDER))

plan: $(VENV)/installed
	$(RUN) -m miewid_core plan $(PARAMETERS)

# packages beside ours, in an environment on top of the other: wildlife-tools needs pandas 2
PEERS := $(VENV)/peers
SITE = import site; print(site.getsitepackages()[0])
$(PEERS)/installed: $(VENV)/installed
	$(RUN) -m venv $(PEERS)
	$(RUN) -c '$(SITE)' > "$$($(PEERS)/bin/python -c '$(SITE)')/beside.pth"
	$(PEERS)/bin/python -m pip install --disable-pip-version-check -e .[bench]
	$(PEERS)/bin/python -m pip install --disable-pip-version-check --no-deps wildlife-tools==0.0.9
	touch $@

# what was measured before is kept: remove its CSV to measure it again
bench: $(PEERS)/installed
	$(PEERS)/bin/python -m miewid_core bench $(ONLY)

# as many tests side by side as there are cores, up to what the memory of a laptop holds
BESIDE = -n auto --maxprocesses 4
unit test: QUICK = -m "not slow"
# each of these asks for at most the multi-species network, trained once, and measures nothing
test: NOTEBOOKS = $(wildcard $(addprefix notebooks/,00_* 01_* 02_* 03_* 08_* 12_* 15_* 16_*))
test-all: NOTEBOOKS = notebooks
unit: $(VENV)/installed
	$(RUN) -m pytest $(BESIDE) $(QUICK)
test test-all: $(VENV)/installed
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m pytest $(BESIDE) $(QUICK)
	# notebooks side by side have a thread each: more get less done, as those that wait spin
	MIEWID_FIGURES="$(CURDIR)/.cache/figures" OMP_NUM_THREADS=1 TQDM_DISABLE=1 $(RUN) -m pytest $(BESIDE) --dist loadfile --nbval-lax --nbval-current-env --nbval-cell-timeout 3600 --timeout 0 -p no:cacheprovider $(NOTEBOOKS)

# rewrite the committed notebooks, executed on the demo data
notebooks: $(VENV)/installed
	$(RUN) -m miewid_core refresh $(if $(ONLY),--only $(ONLY))

# needs uv; the same lock serves every platform and Python version
lock:
	uv pip compile --universal --python-version 3.11 --extra test --no-header --no-annotate -q -U pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV) .venv-newest .cache
