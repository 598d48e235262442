.DEFAULT_GOAL := help
DEV := .venv/bin/python -m nanoclaw_dev

help: ## this list
	@awk -F':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: .venv ## everything up on this machine, and a first message answered
	@$(DEV) up

down: .venv ## destroy the stack, stop the cluster, leave nothing behind
	@$(DEV) down

env: ## what a shell needs for `pulumi` on this cluster: eval "$(make env)"
	@python3 tools/bootstrap.py >&2
	@$(DEV) env

check: .venv ## format, lint, types, import contracts and the tests that need no binary
	@$(DEV) check

test: .venv ## the whole suite on the real engine and a real cluster
	@$(DEV) test

matrix: .venv ## every way to run agents, and all that may befall them; writes docs/conformance.md
	@$(DEV) matrix

preview: .venv ## what `pulumi up` would change; STACK=dev names the stack
	@$(DEV) preview $(STACK)

render: .venv ## what a stack declares, as YAML in rendered/; STACK=dev names the stack, OUT=folder another place
	@$(DEV) render $(or $(STACK),dev) $(if $(OUT),--out "$(OUT)")

bench: .venv ## measure, beside baselines, and write bench/results
	@$(DEV) bench

lock: .venv ## requirements/*.txt anew from the ranges in the pyproject files
	@$(DEV) lock

.venv:
	@python3 tools/bootstrap.py

.PHONY: .venv help up down env check test matrix preview render bench lock
