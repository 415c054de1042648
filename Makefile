# VENV: where the environment is made. ARGS: passed on, as in `make test ARGS="tests/models -k blas"`.
VENV ?= .venv
ARGS ?=

.PHONY: help setup run test check bench

help:
	@echo "make setup    make the environment in $(VENV), with everything to run, test, check and measure"
	@echo "make run      serve the configured model, or else the embedded one"
	@echo "make test     run every test, with branch coverage"
	@echo "make check    check format, lint and types"
	@echo "make bench    run the benchmarks"

setup:
	@VENV="$(VENV)" EXTRAS=test,bench scripts/setup-vllm-mlx-venv.sh

run: setup
	"$(VENV)/bin/anyclaude" serve $(ARGS)

# Two processes; each test file is run by one of them, in its order.
test: setup
	"$(VENV)/bin/python" -m pytest -n 2 --dist loadfile $(ARGS) --cov

check: setup
	"$(VENV)/bin/ruff" format --check .
	"$(VENV)/bin/ruff" check .
	"$(VENV)/bin/mypy"
	@if command -v shellcheck >/dev/null; then shellcheck .ci/run $$(find scripts tests -name '*.sh' -not -path '*/.cache/*'); \
	else echo "shellcheck is not installed: the shell scripts were not checked"; fi

bench: setup
	"$(VENV)/bin/python" -m benchmarks $(ARGS)
