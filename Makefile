# Two commands do everything: `make demo` and `make test`. Both set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
endif
STAMP := $(VENV)/.installed

.PHONY: demo test lint install clean

demo: $(STAMP)
	$(BIN)/bir demo

test: lint
	$(BIN)/pytest tests

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[dev]" --constraint constraints.txt
	$(BIN)/python -m pip install --quiet --no-deps pyiqa openai-clip --constraint constraints.txt
	@touch $@

clean:
	rm -rf $(VENV) build dist demo_output *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache

# The names under which mypy finds the packages, see [tool.mypy] in pyproject.toml. Made by Python:
# `ln -s` copies on Windows, where links need the developer mode.
.PHONY: links
lint: links
links: $(addprefix build/mypy/comfyui_bir/,__init__.py bir_core nodes)

build/mypy/comfyui_bir/%:
	$(PYTHON) -c "import os; os.makedirs('$(@D)', exist_ok=True)"
	$(PYTHON) -c "import os; os.symlink(os.path.relpath('$*', '$(@D)'), '$@', os.path.isdir('$*'))"
