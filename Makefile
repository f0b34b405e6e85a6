# `make demo` and `make test` set up all that they need in .venv: no root, nothing before it but Python 3.11 or newer.
# VDB_TORCH   which build of torch: auto (the default: cuda where nvidia-smi lists a GPU, else cpu), cpu or cuda
# TORCH_INDEX address of PyTorch's own package index for that build, where pip's configured indexes do not hold it
# PYTHON, VENV, JOBS, TESTS   the interpreter, the environment's folder, tests at once, what `make test` runs
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test nightly gpu docs readme lab clean base dev
.DELETE_ON_ERROR:

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
JOBS ?= 2
TESTS ?= tests
VDB_TORCH ?= auto
TORCH_INDEX ?=

BIN := $(abspath $(VENV))/bin
build := $(if $(filter auto,$(VDB_TORCH)),$(if $(shell nvidia-smi -L 2>/dev/null | grep GPU),cuda,cpu),$(VDB_TORCH))
$(if $(filter cpu cuda,$(build)),,$(error VDB_TORCH is "$(VDB_TORCH)": expected auto, cpu or cuda))
pin = $(shell grep -i '^$(1)==' constraints.txt)
version = $(lastword $(subst ==, ,$(call pin,$(1))))
index := $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
export PATH := $(BIN):$(PATH)
pip := $(BIN)/python -m pip --disable-pip-version-check
install := PYTHONWARNINGS=ignore $(pip) install --quiet --progress-bar off --no-build-isolation --constraint constraints.txt
venv := $(VENV)/.venv-made
torch := $(VENV)/.torch-$(build)
base := $(VENV)/.base-$(build)
dev := $(VENV)/.dev-$(build)

help:
	@echo 'make demo      a benchmark of the model that ships, and the path of its report'
	@echo 'make test      everything that asserts behaviour, with coverage'
	@echo 'make lab       JupyterLab on a tutorial: type a prompt, see the clip and its scores'
	@echo 'make docs      the site, in _docs/;  make readme  README.md and the sidebar'
	@echo 'make nightly   the slow checks;  make gpu  the tables of a GPU: dated JSON in papers/results/'
	@echo 'make clean     remove what these made, .venv included;  settings: head -6 Makefile'

demo: base
	@$(BIN)/vdb run tiny --seeds 2 --out runs/demo

# Two tests at once on two cores: threads of torch that wait by spinning would keep the other from its work. Those of a cluster run alone, before: five
# nodes and their attempts on two cores leave no room beside them for what goes by seconds.
test: dev
	@unset IN_TEST; export OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} OMP_WAIT_POLICY=$${OMP_WAIT_POLICY:-passive}; failed=0; \
	$(if $(filter tests,$(TESTS)),$(BIN)/python -m pytest tests/test_ray.py tests/test_scaling.py || failed=1;) \
	$(BIN)/python -m pytest $(TESTS) $(if $(filter tests,$(TESTS)),--ignore tests/test_ray.py --ignore tests/test_scaling.py) -n $(JOBS) --dist worksteal --cov=$(CURDIR)/vdb --cov-config=tests/coverage.ini --cov-report=term --cov-fail-under=$(if $(filter tests,$(TESTS)),85,0) || failed=1; \
	exit $$failed

# Every script runs, whatever happened to the one before; the exit status tells of all.
nightly gpu: dev
	@unset IN_TEST; failed=; for script in tests/$@_*.py; do \
	  [ -e "$$script" ] || continue; echo "== $$script"; $(BIN)/python "$$script" --out papers/results || failed="$$failed $$script"; done; \
	echo '== the $(if $(filter gpu,$@),gpu,slow) cells of the notebooks'; \
	VDB_CELLS=$(if $(filter gpu,$@),gpu,slow) $(BIN)/python -m pytest tests/test_notebooks.py --timeout 14400 || failed="$$failed notebooks"; \
	[ -z "$$failed" ] || { echo "failed:$$failed" >&2; exit 1; }

docs: dev
	@unset IN_TEST; $(BIN)/python tests/make_site.py _docs

readme: dev
	@$(BIN)/python tests/make_site.py --front

lab: dev
	@$(BIN)/jupyter lab nbs/tutorials/01_first_clip.ipynb

clean:
	rm -rf $(VENV) _proc _docs build vdb.egg-info .pytest_cache .hypothesis .coverage* runs/demo
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +

# The environment, in three steps. A stamp file ends each, so a second call starts at once.
base: $(base)
dev: $(dev)

$(venv): constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo '$(PYTHON) is too old: vdb needs Python 3.11 or newer (make PYTHON=...)' >&2; exit 1; }
	@[ -x $(BIN)/python ] || { echo 'making $(VENV); the first time takes some minutes'; $(PYTHON) -m venv $(VENV); }
	@$(pip) install --quiet --progress-bar off $(foreach p,pip setuptools wheel,$(call pin,$(p)))
	@touch $@

# The CPU build is asked for by its full name; a plain version, compared letter by letter, is the build of the main index.
$(torch): $(venv)
	@echo 'installing torch $(call version,torch) for $(build)'
ifeq ($(build),cpu)
	@$(install) $(index) torch==$(call version,torch)+cpu 2>/dev/null || { \
	  echo 'no CPU-only build is in the configured indexes: installing the default build, which is larger and works too (or set TORCH_INDEX)'; \
	  $(install) $(call pin,torch); }
else
	@$(install) $(index) $(if $(TORCH_INDEX),$(call pin,torch),torch===$(call version,torch))
endif
	@rm -f $(VENV)/.torch-* && touch $@

$(base): $(torch) settings.ini setup.py
	@echo 'installing vdb and what it needs'
	@$(install) --editable .
	@touch $@

# torchvision comes alone: it must not bring another build of torch with it.
$(dev): $(base)
	@echo 'installing what tests, documentation and JupyterLab need'
	@$(install) --no-deps $(call pin,torchvision)
	@$(install) --editable '.[dev,browser,lab,hub]'
	@touch $@
