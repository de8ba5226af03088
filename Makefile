# Everything a developer or a newcomer types. Each target works from a fresh clone with only
# Python 3.11 and make; what it needs is installed into .venv first.

PYTHON ?= python3
VENV ?= .venv
PEERS ?= $(VENV)-peers
# Programs of others that tests use.
PROGRAMS ?= .programs
BIN := $(VENV)/bin
STORE ?= models
# More options for pip, an index with CUDA builds of torch, say.
PIP_OPTIONS ?=
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_OPTIONS)
BENCH ?= quick
# More options for pytest: --leave-nothing-out, say.
TEST_OPTIONS ?=
# How long requests are drawn by chance.
FUZZ_SECONDS ?= 60
SOAK_MINUTES ?= 5
# The seed of a soak that is to be the same again.
SOAK_SEED ?=
# More options for the decode benchmark: --only offline,online --setting max_batch_size=128. For
# `make bench-part` those of the part: --help.
BENCH_OPTIONS ?=
BENCH_PYTHON = PYTHONPATH=service:export:tests $(BIN)/python
PROTOS := $(sort $(wildcard proto/seqserve/v1/*.proto))
# The path before "=" stands for the folder behind it, so that names of others are no package of ours.
FOREIGN_PROTOS := $(sort $(wildcard proto/inference/*.proto))
FOREIGN_PATH := seqserve/inference_protocol/v2=proto/inference
PROTOC = PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc \
	--python_out=service --grpc_python_out=service \
	--mypy_out=quiet:service --mypy_grpc_out=quiet:service

.DEFAULT_GOAL := help
.PHONY: help install demo serve programs test test-unit check format proto metrics-page bench bench-part bench-export bench-long fuzz soak parity train bench-deploy deploy-files deploy-check sbom clean

help:  ## Lists the targets.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "seqserve needs Python 3.11 or newer; set PYTHON")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade "pip>=25"

# The stamps hold what was installed last, so that a changed pin installs again.
$(VENV)/demo.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --constraint constraints.txt --editable '.[demo]'
	touch $@

$(VENV)/dev.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --constraint constraints.txt --editable '.[dev]'
	touch $@ $(VENV)/demo.stamp

# CTranslate2 and matplotlib, which tests do without.
$(VENV)/bench.stamp: $(VENV)/dev.stamp
	$(PIP) --constraint constraints.txt --editable '.[dev,bench]'
	touch $@

# fastembed, which needs an older hub library than transformers.
$(PEERS)/stamp: tests/bench/peers.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_OPTIONS) --requirement tests/bench/peers.txt
	touch $@

install: $(VENV)/dev.stamp  ## Installs everything for development.

demo: $(VENV)/demo.stamp  ## Exports the shipped models, serves them, calls them, stops.
	$(BIN)/python -m seqserve_export.demo --store $(STORE)

serve: $(VENV)/demo.stamp  ## Like demo, but the server stays up on port 50051.
	$(BIN)/python -m seqserve_export.demo --store $(STORE) --stay-up

$(PROGRAMS)/stamp: tests/fetch_programs.sh $(wildcard tests/interop/*.txt tests/interop/*.json)
	tests/fetch_programs.sh $(PROGRAMS) $(PYTHON)
	touch $@

programs: $(PROGRAMS)/stamp  ## Fetches Prometheus, proxies, a browser and Node's packages for tests; as root, what builds containers.

# Files are shared out whole, since what a module exports is used by all of its tests.
test: $(VENV)/dev.stamp  ## Runs all tests; says what was left out for want of a program or a right.
	PROGRAMS="$(abspath $(PROGRAMS))" $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 \
		--dist loadfile $(TEST_OPTIONS)

test-unit: $(VENV)/dev.stamp  ## Runs the tests that need neither torch nor a model.
	$(BIN)/python -m pytest tests/unit tests/deploy

check: $(VENV)/dev.stamp  ## Lints, types, layers, API, and whether generated code is up to date.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	PYTHONPATH=service:export $(BIN)/lint-imports --no-logo
	cd proto && ../$(BIN)/buf lint
	$(BIN)/python tests/stub_drift.py

format: $(VENV)/dev.stamp  ## Formats the code and mends what can be mended.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

proto: $(VENV)/dev.stamp  ## Generates the stubs of the server from proto/.
	$(PROTOC) -I proto $(PROTOS)
	$(PROTOC) -I $(FOREIGN_PATH) $(FOREIGN_PROTOS)

metrics-page: $(VENV)/dev.stamp  ## Writes METRICS.md after a change of the metrics.
	PYTHONPATH=service:tests $(BIN)/python tests/metrics_page.py METRICS.md

parity: $(VENV)/dev.stamp  ## Compares every family and head with transformers; writes FAMILIES.md.
	$(BIN)/python -m pytest tests/integration/test_encoder_decoder_parity.py \
	  tests/integration/test_encoder_parity.py --parity-table tests/bench/results/parity.json
	PYTHONPATH=service:tests $(BIN)/python tests/parity_table.py \
	  tests/bench/results/parity.json export/FAMILIES.md

bench-export: $(VENV)/dev.stamp  ## Exports checkpoints of published sizes, and serves them.
	$(BENCH_PYTHON) -m bench.full_size --dtypes fp32 int8

bench: $(VENV)/bench.stamp $(PEERS)/stamp  ## Measures the server against its peers; BENCH=full for all models and rounds.
	$(BENCH_PYTHON) -m bench.decode --extent $(BENCH) $(BENCH_OPTIONS)
	$(BENCH_PYTHON) -m bench.encode --extent $(BENCH) --peer-python $(PEERS)/bin/python
	$(if $(filter full,$(BENCH)),$(BENCH_PYTHON) -m bench.serve --rounds 5)

bench-part: $(VENV)/bench.stamp  ## Measures one thing: PART=attention_cost, step_profile, or another module of tests/bench.
	$(BENCH_PYTHON) -m bench.$(or $(PART),$(error set PART to a module of tests/bench)) $(BENCH_OPTIONS)

bench-long: $(VENV)/dev.stamp  ## Sends 100,000 calls of every kind; the server's memory stays flat.
	$(BENCH_PYTHON) -m bench.long_run --store $(STORE)

fuzz: $(VENV)/dev.stamp  ## Sends bytes and messages drawn by chance, 60 seconds each; FUZZ_SECONDS=600 for more.
	FUZZ_SECONDS=$(FUZZ_SECONDS) $(BIN)/python -m pytest -s \
	  tests/integration/test_malformed_bytes.py::test_any_bytes_get_a_documented_status \
	  tests/integration/test_hostile_requests.py::test_no_request_is_an_internal_error

soak: $(VENV)/dev.stamp  ## Minutes of calls, faults and reloads; SOAK_MINUTES=30 for more of them.
	$(BENCH_PYTHON) -m soak --minutes $(SOAK_MINUTES) $(if $(SOAK_SEED),--seed $(SOAK_SEED))

train: $(VENV)/dev.stamp  ## Trains the shipped pronunciation model again; resumes.
	$(BIN)/python -m seqserve_export.recipes.g2p

# An installation of its own, without pip, so that nothing is listed that a server does not have.
sbom: $(BIN)/python  ## Lists what a server installs, as CycloneDX JSON: dist/seqserve.cdx.json.
	$(PIP) --constraint constraints.txt --editable '.[sbom]'
	$(PYTHON) -m venv --clear --without-pip $(VENV)/server
	$(BIN)/python -m pip --python $(VENV)/server/bin/python install --quiet \
		--disable-pip-version-check $(PIP_OPTIONS) --constraint constraints.txt '.[playground,sentencepiece,tracing]'
	mkdir -p dist
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --mc-type application \
		--output-reproducible --output-format JSON --output-file dist/seqserve.cdx.json \
		$(VENV)/server/bin/python

bench-deploy: $(VENV)/bench.stamp $(PROGRAMS)/stamp  ## Simulates autoscalers, and measures replicas behind Envoy; for deploy/CAPACITY.md and README.md.
	$(BENCH_PYTHON) -m bench.autoscaling
	PROGRAMS="$(abspath $(PROGRAMS))" $(BENCH_PYTHON) -m bench.proxied_replicas_table

deploy-files: $(VENV)/dev.stamp  ## Writes what follows from rules and settings in deploy/: PrometheusRule, schema of the chart.
	PYTHONPATH=service:tests $(BIN)/python tests/deploy_files.py

deploy-check:  ## Checks deploy/ with kubectl, Helm, hadolint, promtool and schemas of Kubernetes and its extensions.
	PATH="$(abspath $(PROGRAMS))/bin:$$PATH" PROGRAMS="$(abspath $(PROGRAMS))" deploy/check.sh

clean:  ## Removes the virtual environment, fetched programs and exported models.
	rm -rf $(VENV) $(PEERS) $(PROGRAMS) $(STORE)
