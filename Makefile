# Each target makes the environment it needs in .venv; a fresh clone wants Python (3.11 or newer) and pip, nothing else.
#   make demo    train a digits classifier, eager and compiled side by side
#   make test    the tests              make lint    ruff and mypy              make bench   the benchmarks
#   make gpu     on a machine with an NVIDIA GPU: tests and benchmarks there, beside PyTorch (25 minutes)

# The first Python on the path that is new enough; override with `make PYTHON=/path/to/python`.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; break; }; done)

# What `make gpu` compares with; empty for nothing (it is a large download).
TORCH ?= torch

VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint bench gpu clean
.NOTPARALLEL:

demo: $(VENV)/.installed-demo
	$(BIN)/python examples/train_digits.py

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -q

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/.installed-plot
	@for file in benchmarks/*.py; do \
		case "$$file" in benchmarks/gpu*) continue;; esac; \
		echo "$$file"; $(BIN)/python "$$file" || exit 1; \
	done

gpu: $(VENV)/.installed-gpu,test
	@[ -z "$(TORCH)" ] || $(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH) || \
		echo "$(TORCH) could not be installed: nothing to compare with" >&2
	$(BIN)/python tools/check_gpu.py

clean:
	rm -rf $(VENV)

# One environment; a stamp for each extra, so that a changed pyproject.toml installs again.
$(VENV)/.installed-%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@

$(BIN)/python:
	@[ -n "$(PYTHON)" ] || { echo "graphtorch needs Python 3.11 or newer; none found on the path" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
