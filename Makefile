# JoyFleet: every command a developer or a first-time user needs. `make` alone lists them.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
export PYTHONDONTWRITEBYTECODE := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo playground check test test-all chaos bench standin clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: ## install everything into .venv as pinned (KIND=cpu or gpu; found out by itself)
	@PYTHON=$(PYTHON) infra/setup.sh $(KIND)

demo: setup ## draw a sample data set into data/demo, caption it into out/demo through Ray Data and vLLM
	@[ -d data/demo ] || $(BIN)/python -m jobs draw data/demo
	@$(BIN)/python -m jobs caption jobs/runs/demo.yaml
	@$(BIN)/python -m jobs verify out/demo

playground: setup ## try prompts on single images in a browser (JOB=job.yaml for your own model and images)
	@$(BIN)/pip -q --disable-pip-version-check install --no-deps -r infra/requirements-playground.lock
	@$(BIN)/python -m jobs playground $(JOB)

check: setup ## the gate before every commit: format, lint, types, floors, fast tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/pytest -q -m "not slow and not long and not chaos" tests

test: setup ## the suite but what takes minutes a test (real vLLM, Ray and S3 server; up to 15 minutes)
	$(BIN)/pytest -m "not long and not chaos" tests

test-all: setup ## all tests there are
	$(BIN)/pytest tests

chaos: setup ## N jobs broken at random from SEED on: kills, stops, storage faults, full disks (N=20 SEED=0)
	$(BIN)/python -m tests.chaos --runs $(or $(N),20) --seed $(or $(SEED),0)

bench: setup ## what JoyFleet costs against something plain, tables and JSON below out/bench (ONLY="slots growth")
	@$(BIN)/pip -q --disable-pip-version-check install --no-deps -r infra/requirements-bench.lock
	$(BIN)/python -m tests.benchmarks $(ONLY)

standin: setup ## train the stand-in model from scratch (about 40 minutes on 2 cores)
	$(BIN)/python -m tools.standin.train --out pipeline/standin/model

clean: ## remove what demo, tests and tools made; keeps .venv
	rm -rf data/demo out/demo .pytest_cache .ruff_cache .import_linter_cache .hypothesis logs
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
