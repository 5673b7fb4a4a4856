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

.PHONY: demo test lint links install clean

demo: $(DEMO)
	$(BIN)/bir demo

test: lint
	$(BIN)/pytest tests

lint: $(DEVELOPMENT) links
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

# The names under which mypy finds the packages, see [tool.mypy] in pyproject.toml. Made by Python:
# `ln -s` copies on Windows, where links need the developer mode.
links: $(addprefix build/mypy/comfyui_bir/,__init__.py bir_core nodes)

build/mypy/comfyui_bir/%:
	$(PYTHON) -c "import os; os.makedirs('$(@D)', exist_ok=True)"
	$(PYTHON) -c "import os; os.symlink(os.path.relpath('$*', '$(@D)'), '$@', os.path.isdir('$*'))"

clean:
	rm -rf $(VENV) build dist demo_output *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache
