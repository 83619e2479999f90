# make demo | make test | make help
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

PYTHON ?= python3
EXTRA ?= cpu
VENV := .venv
BIN := $(VENV)/bin

HOST := 127.0.0.1
PORT ?= 8000
PHOTOS ?=
CHECKPOINT ?=
DETACH ?=
DATA ?= ../shared/data

# Tests over real photos run where there are some.
ifneq ($(wildcard $(DATA)),)
export MULTIGRAIN_TEST_DATA ?= $(abspath $(DATA))
endif

# Text as one word of the shell, whatever is in it.
quote = '$(subst ','\'',$(1))'
# A folder of its own for every choice of photos and checkpoint: a second run goes on with it.
key = $(if $(1),$(shell realpath -m -- $(call quote,$(1)) | cksum | cut -d' ' -f1),drawn)
DEMO := demo/$(call key,$(PHOTOS))
DEMO_PHOTOS := $(if $(PHOTOS),$(call quote,$(PHOTOS)),$(DEMO)/photos)
DEMO_MODEL := $(DEMO)/run/model.safetensors
DEMO_CHECKPOINT := $(if $(CHECKPOINT),$(call quote,$(CHECKPOINT)),$(DEMO_MODEL))
DEMO_INDEX := $(DEMO)/index$(if $(CHECKPOINT),-$(call key,$(CHECKPOINT)))
DEMO_PROCESSES ?= 1
PID_FILE := demo/service-$(PORT).pid
LOG_FILE := demo/service-$(PORT).log
URL := http://$(HOST):$(PORT)

.PHONY: help
help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 20

# --- environments -----------------------------------------------------------------------------

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

# UV=uv installs in a third of the time; pip's configuration is not uv's.
UV ?=
INSTALL := $(if $(UV),$(UV) pip install --python $(BIN)/python,$(BIN)/pip install --disable-pip-version-check) -q

# One call each, so that torch and torchvision come from the same index and match.
$(VENV)/.installed-$(EXTRA): $(BIN)/python pyproject.toml
	$(INSTALL) -e '.[$(EXTRA)]'
	@touch $@

$(VENV)/.installed-$(EXTRA)-dev: $(BIN)/python pyproject.toml
	$(INSTALL) -e '.[$(EXTRA),dev]'
	@touch $(VENV)/.installed-$(EXTRA) $@

.PHONY: install install-dev
install: $(VENV)/.installed-$(EXTRA)  ## the programs, into .venv
install-dev: $(VENV)/.installed-$(EXTRA)-dev  ## the programs and the tools of a developer

# --- demo -------------------------------------------------------------------------------------

.PHONY: demo demo-photos demo-model demo-index demo-search demo-serve demo-stop demo-clean
demo: install demo-photos demo-model demo-index demo-search demo-serve  ## photos to search page; PHOTOS= CHECKPOINT= PORT= DETACH=1

demo-photos: install
ifeq ($(PHOTOS),)
	$(BIN)/python -m trainer.scenes --out $(DEMO_PHOTOS)
endif

# A finished model is kept; an interrupted training goes on.
demo-model: demo-photos
ifeq ($(CHECKPOINT),)
ifeq ($(wildcard $(DEMO_MODEL)),)
	OMP_NUM_THREADS=1 $(BIN)/torchrun --nproc-per-node $(DEMO_PROCESSES) trainer/train.py --config trainer/recipes/demo.yaml --data $(DEMO_PHOTOS) --out $(DEMO)/run --resume auto
else
	@echo "$(DEMO_MODEL) is used; remove $(DEMO)/run to train again"
endif
endif

demo-index: demo-model
	$(BIN)/python -m index.build --photos $(DEMO_PHOTOS) --checkpoint $(DEMO_CHECKPOINT) --out $(DEMO_INDEX)

# A photo of the collection must find itself: the first one that can be read is asked for.
demo-search: demo-index
	@find -L $(DEMO_PHOTOS) -type f -not -path '*/.*' -iregex '.*\.\(jpe?g\|png\|webp\|gif\|bmp\|tiff?\|avif\)' | LC_ALL=C sort | sed -n 1,5p > $(DEMO)/asked.txt
	@while read -r photo; do \
	  echo "$(BIN)/python -m index.search --index $(DEMO_INDEX) --limit 5 '$$photo'"; \
	  if $(BIN)/python -m index.search --index $(DEMO_INDEX) --limit 5 "$$photo" < /dev/null > $(DEMO)/answer.txt; then \
	    cat $(DEMO)/answer.txt; \
	    awk 'NR == 1 && $$2 < 0.999 { print "the photo did not find itself"; exit 1 }' $(DEMO)/answer.txt; exit; \
	  fi; \
	done < $(DEMO)/asked.txt; echo "no search was tried: none of the first photos can be read"

demo-serve: demo-search
	@if [ -f $(PID_FILE) ] && kill -0 $$(cat $(PID_FILE)) 2> /dev/null; then \
	  echo "a demo runs on port $(PORT): make demo-stop PORT=$(PORT)"; exit 1; fi
ifeq ($(DETACH),)
	$(BIN)/python -m service --index $(DEMO_INDEX) --host $(HOST) --port $(PORT)
else
	nohup $(BIN)/python -m service --index $(DEMO_INDEX) --host $(HOST) --port $(PORT) > $(LOG_FILE) 2>&1 & echo $$! > $(PID_FILE)
	@# Ready by its own log, not only by what answers on the port.
	@for try in $$(seq 240); do \
	  kill -0 $$(cat $(PID_FILE)) 2> /dev/null || break; \
	  if grep -q 'service.app: ready' $(LOG_FILE) && $(BIN)/python -m service.healthcheck --url $(URL); then \
	    echo $(URL); exit 0; fi; \
	  sleep 0.5; \
	done; \
	cat $(LOG_FILE); echo "the service did not become healthy; its log is $(LOG_FILE)"; exit 1
endif

demo-stop:  ## end a demo that was started with DETACH=1
	@if [ -f $(PID_FILE) ]; then \
	  pid=$$(cat $(PID_FILE)); rm $(PID_FILE); \
	  if ! kill $$pid 2> /dev/null; then echo "the service had ended"; exit 0; fi; \
	  for try in $$(seq 80); do kill -0 $$pid 2> /dev/null || break; sleep 0.5; done; \
	  if kill -0 $$pid 2> /dev/null; then echo "process $$pid does not end"; exit 1; fi; \
	  echo "stopped"; \
	else echo "no demo service on port $(PORT)"; fi

demo-clean:  ## forget the demo's photos, models and indexes
	rm -rf demo

# --- checks -----------------------------------------------------------------------------------

# A file's tests stay together: they share what they have built. tests/conftest.py orders the files.
PYTEST_PROCESSES ?= -n auto --dist loadfile --no-loadscope-reorder

.PHONY: test test-all lint
test: install-dev lint  ## linters, types and tests
	$(BIN)/pytest -q $(PYTEST_PROCESSES) -m 'not slow'

test-all: install-dev lint  ## the same with the slow tests, and branch coverage
	$(BIN)/pytest $(PYTEST_PROCESSES) --cov --cov-report=term

lint: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# --- benchmarks -------------------------------------------------------------------------------

FULL ?=
ONLY ?=

.PHONY: bench-embedding bench-index bench-service bench-quality bench-scale bench-trainer bench-ablation
bench-embedding: install-dev  ## speed of the engine and of index.build
	status=0; $(BIN)/python -m benchmarks.embedding || status=1; \
	  $(BIN)/python -m benchmarks.index_build || status=1; exit $$status

# usearch for FULL alone, beside the environment's own packages; autofaiss makes an environment.
bench-index: install-dev  ## the index: rates, recall, searches, changes; FULL=1: the whole protocol; ONLY="rates ..."
	$(if $(FULL),$(BIN)/python -m pip install --quiet --no-deps --upgrade --target build/usearch usearch numkong tqdm)
	PYTHONPATH=build/usearch $(BIN)/python -m benchmarks.index $(if $(FULL),--full) $(foreach part,$(ONLY),--only $(part))

bench-scale: install-dev  ## Ray and Milvus beside the local engine, memory of a build, opening; FULL=1: two million rows
	$(BIN)/python -m benchmarks.scale $(if $(FULL),--full) $(foreach part,$(ONLY),--only $(part))

bench-service: install-dev  ## the service under load, beside LitServe and a plain handler; FULL=1
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target build/litserve litserve pyzmq psutil
	$(BIN)/python -m benchmarks.service --litserve build/litserve $(if $(FULL),--full)

# A quick run fills no table: it leaves out what FULL=1 puts there. Vectors are kept in build/quality.
QUALITY_FLAGS = $(if $(FULL),--full --table docs/quality.md)
bench-quality: install-dev  ## retrieval quality on the real photos of DATA, and its speed; FULL=1: every step, the tables
	status=0; $(BIN)/python -m benchmarks.quality --data $(call quote,$(DATA)) --out build/quality/indexes $(QUALITY_FLAGS) || status=1; \
	  $(BIN)/python -m benchmarks.quality_steps --data $(call quote,$(DATA)) --out build/quality $(QUALITY_FLAGS) || status=1; \
	  $(BIN)/python -m benchmarks.quality_speed $(QUALITY_FLAGS) || status=1; exit $$status

bench-trainer: install-dev  ## the trainer's overhead, loss, loading, checkpoints; FULL=1: the whole protocol
	$(BIN)/python -m benchmarks.trainer --data $(call quote,$(DATA)) $(if $(FULL),--full)

# Resumable: runs that are done are kept in build/ablation.
bench-ablation: install-dev  ## what each choice of the training recipe is worth; an hour
	$(BIN)/python -m benchmarks.ablation --data $(call quote,$(DATA)) --out build/ablation --table docs/quality.md
