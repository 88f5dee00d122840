# Every target makes .venv and installs what it needs by itself; the only thing expected is Python >= 3.11.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
COMPILE := $(BIN)/uv pip compile --no-config --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet
LOCK := $(COMPILE) pyproject.toml
LOCK_INTEGRATION := $(COMPILE) --upgrade
ARGS ?=
INTEGRATION := .venv-integration
COMPILED := $(CURDIR)/build/compiled
# A suite starts hundreds of processes: without bytecode each of them would compile all sources anew.
unexport PYTHONDONTWRITEBYTECODE
# A file's tests stay in one process: they share what its fixtures start. ARGS=-n0 runs all in one.
# The order is that of tests/conftest.py, which also says how many processes there are.
PARALLEL := -n auto --dist loadfile --no-loadscope-reorder
# What runs through compiled modules is tested in that form; `tests/compiled` holds the list complete.
COMPILED_TESTS := tests/compiled tests/dataplane tests/upstream tests/wire tests/test_decide.py \
	$(patsubst %,tests/runtime/test_%.py,ids inbox) $(patsubst %,tests/identity/test_%.py,best_practices cache claims compact issuers jwk tokens) $(patsubst %,tests/telemetry/test_%.py,metrics recorder sampler) \
	$(patsubst %,tests/policy/test_%.py,bucket match resolver route ruleset segment snapshot sticky)
INTERPRETED := $(BIN)/python -m pytest $(PARALLEL) $(filter-out tests/compiled,$(COMPILED_TESTS))

.PHONY: help demo test interpreted properties check format bench bench-policy chaos compiled integration lock sbom clean
help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 16

demo: $(VENV)/.runtime  ## the whole product in a minute, with real models; ARGS=--exit to end by itself
	$(BIN)/rmv demo $(ARGS)

test: $(VENV)/.development $(VENV)/.compile  ## the test suite, its core compiled where there is a C compiler (with ARGS, which go to pytest, nothing is compiled)
ifneq ($(ARGS),)
	$(BIN)/python -m pytest $(PARALLEL) $(ARGS)
else
	@$(BIN)/python hatch_build.py >/dev/null 2>&1 &  # what it has to say, it says again when it is waited for below
	$(BIN)/python -m pytest $(PARALLEL) $(addprefix --ignore=,$(COMPILED_TESTS))
	@$(BIN)/python hatch_build.py; case $$? in \
	0) PYTHONPATH=$(COMPILED) $(BIN)/python -m pytest $(PARALLEL) -o "pythonpath=$(COMPILED) ." $(COMPILED_TESTS);; \
	3) echo "no C compiler: the core is tested interpreted"; $(INTERPRETED);; \
	*) exit 1;; esac
endif

interpreted: $(VENV)/.development  ## the tests that `make test` runs compiled, without compiling anything
	$(INTERPRETED) $(ARGS)

properties: $(VENV)/.development  ## the property tests, with ten times as many examples as `make test` has
	RMV_EXAMPLES=400 $(BIN)/python -m pytest $(PARALLEL) -o timeout=600 $$(grep -rl "^@given" tests --include=test_*.py --exclude-dir=integration) $(ARGS)

check: $(VENV)/.development  ## lint, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/yamllint --strict policies deploy

compiled: $(VENV)/.compile  ## the package with its hot modules compiled, in build/compiled; needs a C compiler
	@$(BIN)/python hatch_build.py

bench: $(VENV)/.bench $(VENV)/.compile  ## measure beside Envoy, HAProxy and nginx (ARGS, e.g. "--items a,e --rounds 1")
	@$(BIN)/python hatch_build.py || [ $$? -eq 3 ]  # 3: no C compiler; the subject then says that it is interpreted
	$(BIN)/python -m tests.bench install
	$(BIN)/python -m tests.bench run $(ARGS)

bench-policy: $(VENV)/.development $(VENV)/.compile  ## measure what policies cost: decisions, swaps, a million pins, propagation, rollbacks (ARGS, e.g. "swaps pins")
	@$(BIN)/python hatch_build.py || [ $$? -eq 3 ]
	PYTHONPATH=$(COMPILED):$(CURDIR) $(BIN)/python -P -m tests.bench.policy $(ARGS)

chaos: $(VENV)/.development  ## break a sidecar under load in every way, and count what it costs (ARGS, e.g. SIGHUP)
	$(BIN)/python -m tests.chaos $(ARGS)

integration: $(VENV)/.development $(INTEGRATION)/client $(INTEGRATION)/mlserver $(INTEGRATION)/llm-katan $(INTEGRATION)/mlflow  ## MLServer and OpenAI clients through the sidecar, lineages from MLflow, skipping what cannot be installed; a gibibyte and mutated messages through it
	if [ -e $(INTEGRATION)/client/.installed ]; then python=$(INTEGRATION)/client/bin/python; else python=$(BIN)/python; fi; \
	"$$python" -m pytest -rs --confcutdir=tests/integration tests/integration --ignore=tests/integration/test_memory.py --ignore=tests/integration/test_fuzz.py $(ARGS) || [ $$? -eq 5 ]  # 5: every module was skipped
	$(BIN)/python -m pytest -rP tests/integration/test_memory.py tests/integration/test_fuzz.py $(ARGS) || [ $$? -eq 5 ]

format: $(VENV)/.development  ## format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: $(VENV)/.development  ## renew the hash-pinned requirement files
	$(LOCK) --upgrade -o requirements/runtime.txt
	$(LOCK) --upgrade --extra dev -c requirements/runtime.txt -o requirements/development.txt
	$(LOCK) --upgrade --extra build -c requirements/runtime.txt -o requirements/build.txt
	$(LOCK) --upgrade --extra compile -c requirements/runtime.txt -c requirements/development.txt -c requirements/build.txt -o requirements/compile.txt
	$(LOCK) --upgrade --extra bench -c requirements/runtime.txt -o requirements/bench.txt
	$(LOCK_INTEGRATION) requirements/integration-client.in -c requirements/development.txt -o requirements/integration-client.txt
	$(LOCK_INTEGRATION) requirements/integration-mlserver.in -o requirements/integration-mlserver.txt
	$(LOCK_INTEGRATION) requirements/integration-llm-katan.in -o requirements/integration-llm-katan.txt
	$(LOCK_INTEGRATION) requirements/integration-mlflow.in -o requirements/integration-mlflow.txt

sbom: $(VENV)/.development  ## what a sidecar is made of, each package with its hashes: CycloneDX in build/sbom.json
	@mkdir -p build
	$(BIN)/python -W ignore -m cyclonedx_py requirements requirements/runtime.txt --pyproject pyproject.toml --output-reproducible --of JSON -o build/sbom.json

clean:  ## remove the virtual environments, caches and what was built
	rm -rf build .venv .venv-* .mypy_cache .ruff_cache .hypothesis .import_linter_cache

# --- virtual environments --------------------------------------------------------------------

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: requirements/build.txt pyproject.toml | $(BIN)/python
	$(PIP) install --require-hashes -r requirements/build.txt
	$(PIP) install --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/.development: requirements/development.txt $(VENV)/.runtime
	$(PIP) install --require-hashes -r requirements/development.txt
	touch $@

$(VENV)/.compile: requirements/compile.txt $(VENV)/.runtime
	$(PIP) install --require-hashes -r requirements/compile.txt
	touch $@

$(VENV)/.bench: requirements/bench.txt $(VENV)/.runtime
	$(PIP) install --require-hashes -r requirements/bench.txt
	touch $@

# What cannot be installed leaves pip's reason in why-not.txt, which its tests skip with; it is tried again next time.
.PHONY: $(INTEGRATION)/client $(INTEGRATION)/mlserver $(INTEGRATION)/llm-katan $(INTEGRATION)/mlflow
$(INTEGRATION)/client $(INTEGRATION)/mlserver $(INTEGRATION)/llm-katan $(INTEGRATION)/mlflow: $(INTEGRATION)/%: requirements/integration-%.txt
	[ $@/.installed -nt $< ] || { $(PYTHON) -m venv --clear $@ && \
	$@/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes -r $< 2>$@/why-not.txt && touch $@/.installed; } || cat $@/why-not.txt
