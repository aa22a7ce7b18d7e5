# make demo: set up and run the main job.  make test: set up and run the tests.  Both need only Python 3.11 or newer.
PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3,$(if $(shell $(p) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo yes),$(p))))
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SPX := data/spx_vix_2023-02-15/spx_2023-02-15.parquet

.PHONY: demo test slow check clean

demo: $(READY)
	$(BIN)/qsde calibrate $(SPX) --model heston --model bates --min-days 7 --max-deviations 6 \
		--out out/fit.json --report out/report.html

# Two workers of one thread each: a test must not depend on, or fight for, the number of cores.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

slow: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m slow

$(READY): pyproject.toml
	@test -n "$(PYTHON)" || { echo "qsde needs Python 3.11 or newer; none was found. Install it, or: make PYTHON=/path/to/python" >&2; exit 1; }
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,notebooks]'
	touch $@

clean:
	rm -rf $(VENV) out .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
