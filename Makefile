# JoyFleet: every command a developer or a first-time user needs. `make` alone lists them.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
# uv compiles nothing when it installs: Python must be able to keep what it compiles at the first import, or each process
# compiles torch and vLLM again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo playground check lint test test-all test-five chaos bench peers lock standin docs clean

# Two workers on two cores: a test of Ray or of a server waits for much of its time. tests/workers.py hands them out.
PYTEST := $(BIN)/pytest -n auto --maxprocesses 4 --dist loadscope

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: ## install everything into .venv with pinned versions (KIND=cpu or gpu; detected by default)
	@PYTHON=$(PYTHON) infra/setup.sh $(KIND)

demo: setup ## draw a sample data set into data/demo, caption it into out/demo through Ray Data and vLLM
	@[ -d data/demo ] || $(BIN)/python -m jobs make-demo-data data/demo
	@$(BIN)/python -m jobs caption jobs/runs/demo.yaml
	@$(BIN)/python -m jobs verify out/demo
	@echo; $(BIN)/python -m jobs show out/demo --field txt --field tags
	@echo "report: $$($(BIN)/python -m jobs report out/demo)"
	@echo "next:   open the report in a browser, then try"
	@echo "          .venv/bin/joyfleet preview jobs/runs/demo.yaml"
	@echo "          .venv/bin/joyfleet export out/demo out/demo-csv --to csv"
	@echo "        your own pictures: README.md, section \"A job\""

playground: setup ## try prompts on single images in a browser (JOB=job.yaml for your own model and images)
	@infra/install.sh .venv --require-hashes -r infra/requirements-playground.lock
	@$(BIN)/python -m jobs playground $(JOB)

check: lint ## the gate before every commit: format, lint, types, floors, fast tests
	$(PYTEST) -q -m "not slow and not long and not chaos" tests

lint: setup ## the part of `make check` that runs no test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

test: setup ## the suite without tests that take minutes each (real vLLM, Ray and S3 server; under 10 minutes)
	$(PYTEST) -m "not long and not chaos" tests

test-all: setup ## all tests
	$(BIN)/pytest tests

test-five: setup ## `make test` twice alone, twice beside a load, once without a network, and how long each took
	tests/five.sh

chaos: setup ## N jobs with random faults from SEED on: kills, stops, storage faults, full disks (N=20 SEED=0)
	$(BIN)/python -m tests.chaos --runs $(or $(N),20) --seed $(or $(SEED),0)

bench: setup ## measure JoyFleet against plain programs; tables and JSON in out/bench (ONLY="slots growth")
	@infra/peers.sh datatrove
	$(BIN)/python -m tests.benchmarks $(ONLY)

peers: setup ## install the programs that `make bench ONLY=peers` compares with into out/peers (datatrove, Daft, NeMo Curator, CaptionFlow)
	infra/peers.sh

lock: ## resolve infra/requirements-*.lock again for changed requirements (UPGRADE=1: with the newest versions)
	@PYTHON=$(PYTHON) infra/lock.sh $(if $(UPGRADE),--upgrade)

standin: setup ## train the stand-in model again (about 40 minutes on 2 cores)
	$(BIN)/python -m tools.standin.train --out pipeline/standin/model

docs: ## build the documentation as a site into site/; fails on a broken link (installs mkdocs into .venv-docs)
	@PYTHON=$(PYTHON) infra/install.sh .venv-docs --require-hashes -r infra/requirements-docs.lock
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build

clean: ## remove the files that demo, tests and tools made; keeps .venv
	rm -rf data/demo out/demo out/demo-csv demo.preview.html site .pytest_cache .ruff_cache .import_linter_cache .hypothesis logs
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
