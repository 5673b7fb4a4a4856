# Two commands do everything: `make demo` and `make test`. Both set up .venv first, each with what it
# needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
endif
DEMO := $(VENV)/.installed-for-demo
DEVELOPMENT := $(VENV)/.installed-for-development
PIP := $(BIN)/python -m pip install --quiet --constraint constraints.txt

.PHONY: demo test lint install clean

demo: $(DEMO)
	$(BIN)/bir demo

test: lint
	$(BIN)/pytest tests

lint: $(DEVELOPMENT)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: $(DEVELOPMENT)

$(DEMO): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable ".[demo]"
	@touch $@

$(DEVELOPMENT): $(DEMO)
	$(PIP) --editable ".[dev]"
	$(PIP) --no-deps pyiqa openai-clip
	@touch $@

clean:
	rm -rf $(VENV) build dist demo_output *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache
