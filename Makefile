# make demo    set up, then scan the embedded Gemma for copy-suppression heads
# make test    set up, then run the tests
# make check   formatting, lint, types, import contracts, tests: what CI runs
# make notebooks   execute the notebooks on the real model; their figures need a Chrome or Chromium
# make bench   speed and memory as ratios to peers and floors of the same run

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Everything here works without a network; unset it to load other models from the hub.
export HF_HUB_OFFLINE ?= 1

.PHONY: demo test check lint types imports format notebooks bench clean

demo: $(VENV)/.installed
	$(BIN)/mechint scan --model gemma3-270m --out results/demo --resume

test: $(VENV)/.installed
	$(BIN)/python -m pytest

check: lint types imports test

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.installed
	$(BIN)/pyright

imports: $(VENV)/.installed
	$(BIN)/lint-imports

format: $(VENV)/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

notebooks: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[notebooks]"
	for name in notebooks/*.ipynb; do \
		PLOTLY_RENDERER=plotly_mimetype+png PYTHONWARNINGS="ignore:IProgress not found" $(BIN)/jupyter execute --inplace --timeout=3600 $$name || exit 1; \
	done

bench: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[bench]"
	$(BIN)/python -m benchmarks

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --constraint constraints.txt --editable ".[test]"
	touch $@

clean:
	rm -rf $(VENV)
