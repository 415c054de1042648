# VENV   the folder of the environment (.venv)
# ARGS   arguments for the command, as in `make test ARGS="tests/models -k blas"`
# MODEL  for `make run`: a folder, a hub id, or `demo`
# PORT   for `make run`: the port to listen on
VENV ?= .venv
ARGS ?=
MODEL ?=
PORT ?=
FUZZ_SECONDS ?= 120

PYTEST = "$(VENV)/bin/python" -m pytest
SHARED = --dist loadfile --no-loadscope-reorder
FAST = not endurance and not model and not models and not client and not browser and not deployment and not process \
	and not exhaustive and not waits

# Without bytecode, each process that a test starts would compile the package.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup run test coverage test-fast test-models test-clients test-suites test-simulation test-history test-mutation test-container \
	test-endurance fuzz check bench

help:
	@echo "make run              install what running needs, and serve (MODEL=... PORT=...; default: the demo model on 8081)"
	@echo "make setup            install everything for development in $(VENV)"
	@echo "make test-fast        run the tests that need no model and no server, in under a minute"
	@echo "make test             run all tests but the long ones, which the targets below run"
	@echo "make coverage         do the same and measure branch coverage"
	@echo "make test-models      compare a tiny model of each of mlx-lm's architectures with mlx-lm's own answers"
	@echo "make test-clients     install every client that the tests know, and run their tests"
	@echo "make test-suites      run the official SDKs' own tests against this server, and name those that fail"
	@echo "make test-simulation  try 10,000 seeded worlds of servers, clients and a failing store"
	@echo "make test-history     check what servers on one Redis recorded under 90 seconds of faults"
	@echo "make test-endurance   flip every bit, end a fetch at every point, kill 100 engines, and watch memory for long"
	@echo "make test-container   build the container image without a daemon or a registry, and run it once"
	@echo "make test-mutation    change the caches and the scheduler in small ways, and list what no test notices"
	@echo "make fuzz             feed every decoder for FUZZ_SECONDS (120) with inputs guided by coverage"
	@echo "make check            check format, lint, types, imports, and the bounds on size and prose"
	@echo "make bench            run the benchmarks"

setup:
	@VENV="$(VENV)" EXTRAS=test,bench scripts/setup-vllm-mlx-venv.sh

run:
	@VENV="$(VENV)" scripts/setup-vllm-mlx-venv.sh
	"$(VENV)/bin/anyclaude" serve $(if $(MODEL),"$(MODEL)") $(if $(PORT),--port "$(PORT)") $(ARGS)

# Three processes share the test files; the tests of one file run in order in one process. In their alphabetical order
# small files are last, so that no process waits long for another. Many tests wait, so on two cores the third process
# saves a third of the time.
test: setup
	$(PYTEST) -n 3 $(SHARED) -m "not models and not suites and not endurance and not container" --durations=10 $(ARGS)

# Coverage slows the tests down, so it is a target of its own.
coverage:
	$(MAKE) test ARGS="$(ARGS) --cov"

test-fast: setup
	$(PYTEST) -n 2 $(SHARED) -m "$(FAST)" --hypothesis-profile=fast $(ARGS)

test-models: setup
	$(PYTEST) -m models tests/executor/models $(ARGS)

test-clients: setup
	@tests/claude_code/install.sh
	@tests/agents/install.sh
	@tests/clients/frameworks/install.sh
	@tests/clients/node/install.sh
	$(PYTEST) tests/agents tests/clients tests/claude_code -m "not suites" $(ARGS)

# The suites and what they import are installed into tests/.cache.
test-suites: setup
	@tests/clients/suites/install.sh
	$(PYTEST) -q -s -m suites tests/clients/suites $(ARGS)

# A failing seed is printed; ANYCLAUDE_SEED=N tries it alone.
test-simulation: setup
	ANYCLAUDE_SEEDS=10000 $(PYTEST) -n 2 tests/simulation $(ARGS)

# ANYCLAUDE_SEED=N chooses other faults.
test-history: setup
	$(PYTEST) tests/history $(ARGS)

test-endurance: setup
	$(PYTEST) -m endurance tests $(ARGS)

# Needs root, and Debian's buildah and debootstrap. The base image is made once, in tests/.cache.
test-container: setup
	$(PYTEST) -m container tests/deployment $(ARGS)

# ARGS are names of mutants and options, as in ARGS='--jobs 6 service.response_cache.key*'. Results stay in mutants/.
test-mutation:
	@VENV="$(VENV)" EXTRAS=test,bench,mutation scripts/setup-vllm-mlx-venv.sh
	"$(VENV)/bin/python" -m tests.mutation $(ARGS)

# A failing input is written to the corpus, where `make test` finds it from then on.
fuzz:
	@VENV="$(VENV)" EXTRAS=test,bench,fuzz scripts/setup-vllm-mlx-venv.sh
	@for target in $$(ls tests/fuzz/corpus); do \
		echo "== $$target"; "$(VENV)/bin/python" -m tests.fuzz $$target --seconds $(FUZZ_SECONDS) || exit 1; \
	done

check: setup
	"$(VENV)/bin/ruff" format --check .
	"$(VENV)/bin/ruff" check .
	"$(VENV)/bin/mypy"
	$(PYTEST) -q tests/test_imports.py tests/quality
	@if command -v shellcheck >/dev/null; then shellcheck .ci/run $$(find scripts tests -name '*.sh' -not -path '*/.cache/*'); \
	else echo "shellcheck is not installed: the shell scripts were not checked"; fi

bench: setup
	"$(VENV)/bin/python" -m benchmarks $(ARGS)
