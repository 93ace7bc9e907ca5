# Every command of this repository. Needs Python 3.11 or newer and make; the rest is installed into .venv.
#   make up      run Spine on this machine (Ctrl-C stops it)      make test    everything that CI runs
#   make check   lint, types, layers                              make bench   the benchmarks (bench-quick: a short run)
#   make chaos   the long fault run                               make lock    write the lock files again
#   make openapi write openapi/*.json again                       make demo    one story through all products (make up runs)
#   make release-openapi   take openapi/*.json as released: from then on `make check` refuses what breaks their callers

PYTHON ?= python3
PY := .venv/bin/python
# The name of the stamp contains the checksum of its lock file: a changed lock installs again, an unchanged one does not.
RUN := .venv/run-$(shell cksum <requirements.lock | cut -d' ' -f1)
DEV := .venv/dev-$(shell cksum <requirements-dev.lock | cut -d' ' -f1)
WHERE ?= tests
LOCK := .venv/locking/bin/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url \
	--no-emit-find-links --custom-compile-command "make lock"

.PHONY: up check test pytest bench bench-quick chaos lock openapi release-openapi demo

up: $(RUN)
	@exec $(PY) -m spine.supervisor

check: $(DEV)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	.venv/bin/lint-imports --no-logo
	$(PY) -m products.openapi --check
	$(PY) -m products.openapi_changes

# Types are checked beside the tests, which wait more than they calculate: half a minute less.
test: $(DEV)
	@$(MAKE) --no-print-directory -j2 check pytest

# Tests wait for a quarter of their time: three processes keep two cores busy.
pytest: $(DEV)
	$(PY) -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not long" --hypothesis-profile=thorough $(WHERE)

bench: $(DEV)
	$(PY) -m bench

bench-quick: $(DEV)
	$(PY) -m bench --quick

chaos: $(DEV)
	$(PY) -m pytest tests/chaos

openapi: $(RUN)
	@$(PY) -m products.openapi

demo: $(RUN)
	@.venv/bin/spine demo

release-openapi: openapi
	@$(PY) -m products.openapi_changes --release

# uv is needed only to write the lock files, so it has an environment of its own.
lock:
	$(PYTHON) -m venv .venv/locking && .venv/locking/bin/python -m pip install --quiet "uv>=0.13,<0.14"
	$(LOCK) pyproject.toml --output-file requirements.lock
	$(LOCK) pyproject.toml --group dev --constraint requirements.lock --output-file requirements-dev.lock

$(RUN):
	@PYTHON=$(PYTHON) .ci/install requirements.lock && rm -f .venv/run-* && touch $@

$(DEV):
	@PYTHON=$(PYTHON) .ci/install requirements-dev.lock && rm -f .venv/dev-* && touch $@
