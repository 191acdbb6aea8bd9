# `make demo` and `make test` work on a bare Debian with Python 3.11 or newer and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test chromium check format lock clean

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.11 ..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "On Debian: apt-get install python3-venv"; exit 1; }
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check "uv==$$(sed -n 's/^uv==//p' requirements.lock)"
	$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(STAMP)  ## the main job, end to end, on drives that the project makes itself
	$(BIN)/mining demo

test: $(STAMP) chromium  ## the test suite
	$(BIN)/python -m pytest -n 2 --dist loadfile

chromium:  ## for tests of pages: on a new CI machine, Debian's; elsewhere those tests are skipped without one
	@command -v chromium >/dev/null || test -z "$$CI" || test "$$(id -u)" != 0 || { apt-get update -qq && apt-get install -qq --no-install-recommends chromium; }

check: $(STAMP)  ## lint, format, types, import rule
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock:  ## renew requirements.lock (no index host is written into it)
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --all-extras --no-header --no-emit-index-url \
	  pyproject.toml tools/requirements-tools.in --output-file requirements.lock

clean:
	rm -rf $(VENV) demo build *.egg-info
