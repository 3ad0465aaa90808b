# Everything here sets up what it needs; Python 3.11 or newer is all that has to be there.
PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help install demo test chaos chaos-rag soak lint bench bench-gateway bench-litellm bench-fairness bench-ledger eval generate lock clean bench-pool bench-rag bench-start conformance isolation

help: ## show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: ## make .venv with the `loam` command and all that the tests need
	@$(PYTHON) scripts/venv.py install

demo: install ## start the platform here, ingest documents (also those in DOCS=folder), ask three questions
	@$(BIN)/loam demo $(if $(DOCS),--docs "$(DOCS)")

test: lint ## linters, types, layers, generated files, then all tests
	$(BIN)/pytest

chaos: REQUESTS ?= 10000
chaos: install ## kill gateways, PostgreSQL and Valkey under load (REQUESTS=10000), and print what the ledger made of it
	LOAM_CHAOS_REQUESTS=$(REQUESTS) $(BIN)/pytest -s tests/chaos

soak: STEPS ?= 1000000
soak: MINUTES ?= 120
soak: install ## compare the ledger with the simplest one, for STEPS=1000000 steps or MINUTES=120 minutes
	$(BIN)/python -m tests.chaos.soak $(STEPS) $(MINUTES)

isolation: QUERIES ?= 10000
isolation: install ## ask as one tenant for what is another's, in all the ways we know (QUERIES=10000)
	LOAM_ISOLATION_QUERIES=$(QUERIES) $(BIN)/pytest --timeout=1500 tests/services/retrieval/test_isolation.py

chaos-rag: KILLS ?= 50
chaos-rag: DOCUMENTS ?= 10000
chaos-rag: install ## kill ingestion workers (KILLS=50, while they ingest and while they rebuild), and sync DOCUMENTS=10000
	LOAM_RAG_KILLS=$(KILLS) $(BIN)/pytest tests/services/ingestion/test_rebuild.py
	LOAM_FRESH_DOCUMENTS=$(DOCUMENTS) $(BIN)/pytest tests/services/ingestion/test_freshness.py

lint: install ## linters, types, layers, generated files
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m loam_operator.api.generate --check
	$(BIN)/python scripts/reference.py --check

bench: install ## measure gateway, fairness, ledger, pool, ingestion and search, start and local platform; figures go to build/bench/
	$(BIN)/python -m tests.bench.gateway
	$(BIN)/python -m tests.bench.fairness
	$(BIN)/python -m tests.bench.ledger
	$(BIN)/python -m tests.bench.pool
	$(BIN)/python -m tests.bench.rag
	$(BIN)/python -m tests.bench.start
	$(BIN)/python -m tests.bench.local_platform

bench-gateway: install ## measure what the gateway adds, beside LiteLLM's proxy where that is installed
	$(BIN)/python -m tests.bench.gateway

bench-litellm: ## put LiteLLM's proxy into build/litellm, for bench-gateway to measure
	$(PYTHON) -m venv build/litellm
	build/litellm/bin/python -m pip install --quiet 'litellm[proxy]'

bench-fairness: install ## measure what one tenant's burst costs another
	$(BIN)/python -m tests.bench.fairness

bench-ledger: install ## measure holds and postings
	$(BIN)/python -m tests.bench.ledger

bench-pool: install ## measure one retrieval process with 500 tenants' tables open
	$(BIN)/python -m tests.bench.pool

bench-rag: install ## measure ingestion and search, beside an exact search in memory
	$(BIN)/python -m tests.bench.rag

bench-start: install ## measure how soon a gateway serves
	$(BIN)/python -m tests.bench.start

eval: DATA ?= ../shared/data
eval: install ## measure retrieval on the folders scifact and chunking below DATA=../shared/data, where they are there
	$(BIN)/python scripts/evaluate.py "$(DATA)"

conformance: install ## hold the gateway against its OpenAPI schema for ten minutes, and against the official clients
	LOAM_CONFORMANCE_SECONDS=600 $(BIN)/pytest --timeout=1500 tests/conformance

generate: install ## write what is generated: CRDs and the reference pages
	$(BIN)/python -m loam_operator.api.generate
	$(BIN)/python scripts/reference.py

lock: ## pin the newest dependencies that fit pyproject.toml
	@$(PYTHON) scripts/venv.py lock

clean: ## remove the virtual environment and what builds and tests left
	rm -rf .venv build dist htmlcov .coverage .coverage.* .hypothesis
	rm -rf .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
