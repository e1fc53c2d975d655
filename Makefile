# Two commands for users, each sets up all that it needs: `make demo` and `make test`.
# PYTHON chooses the interpreter (3.11 to 3.13), VENV the folder of the virtual environment.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test slow mutants check lowest notebooks report docs bench check-gpu bench-gpu clean

demo: $(VENV)/.installed
	$(BIN)/diffevo-jax run configs/fig4_cartpole.yaml

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

slow: $(VENV)/.installed-test $(VENV)/.installed-docs  ## the long studies: quality over many repeats
	$(BIN)/python -m pytest -m slow

# MUTANTS='diffevo_jax.samplers._ddim.*' takes one module; a run that was stopped goes on where it was.
mutants: $(VENV)/.installed-mutants  ## small faults put into the code: how many the tests find
	$(BIN)/mutmut run $(MUTANTS)
	@$(BIN)/mutmut results --all true | grep -v 'not checked' | awk -F '[: ]+' '/__mutmut_/ { \
	  sub(/\.x_.*/, "", $$2); all[$$2]++; killed[$$2] += $$3 != "survived" && $$3 != "no" } \
	  END { for (module in all) print module ": " killed[module] " of " all[module] " killed" }'

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

lowest:  ## the lowest versions that pyproject.toml allows, installed and used for a minute
	.ci/lowest $(PYTHON)

notebooks: $(VENV)/.installed-test  ## run the notebooks and store their output
	$(BIN)/jupytext --to ipynb notebooks/*.py
	$(BIN)/jupyter nbconvert --to notebook --inplace --execute \
	  --ExecutePreprocessor.record_timing=False notebooks/*.ipynb
	$(BIN)/jupyter nbconvert --to notebook --inplace --coalesce-streams notebooks/*.ipynb
	$(BIN)/python experiments/covers.py

report: $(VENV)/.installed  ## every figure and table with all repeats; kept in docs/report
	$(BIN)/diffevo-jax reproduce --out runs/reproduce
	rm -rf docs/report && mkdir docs/report
	cd runs/reproduce && tar -cf - report.md numbers.csv */*.png */*.gif | tar -xf - -C ../../docs/report

docs: $(VENV)/.installed-docs  ## the site, without network, warnings as errors: build/docs/index.html
	$(BIN)/sphinx-build --fresh-env --fail-on-warning --keep-going --quiet docs build/docs
	@echo "Built build/docs/index.html"

bench: $(VENV)/.installed-test  ## error, speed and memory: JSON under experiments/benchmarks/results
	$(BIN)/python experiments/benchmarks/estimator.py
	$(BIN)/python experiments/benchmarks/rollouts.py
	$(BIN)/python experiments/benchmarks/loop.py
	$(BIN)/python experiments/benchmarks/compilation.py
	$(BIN)/python experiments/benchmarks/scaling.py

check-gpu: .venv-gpu/.installed  ## compile for GPUs without one: registers, instructions, host waits
	PYTHONPATH=. .venv-gpu/bin/python experiments/benchmarks/check_gpu.py

# With the machine's own Python and jax, so that nothing is installed: `make bench-gpu PYTHON=...`.
bench-gpu:  ## on a GPU, in 8 minutes: jax, numpy, absl-py; roll-outs need gymnax and flax
	PYTHONPATH=. $(PYTHON) experiments/benchmarks/gpu.py

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  { echo "diffevo-jax needs Python 3.11, 3.12 or 3.13: make $(MAKECMDGOALS) PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing diffevo-jax into $(VENV): a minute, once ..."
	$(INSTALL) --editable ".[all]"
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(INSTALL) --editable ".[test]"
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(INSTALL) --editable ".[docs]"
	@touch $@

$(VENV)/.installed-mutants: $(VENV)/.installed-test
	$(INSTALL) --editable ".[mutants]"
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-test
	$(INSTALL) --editable ".[dev]"
	@touch $@

# jax's plugin and three of NVIDIA's compilers, without the libraries that only a card needs.
.venv-gpu/.installed: constraints.txt
	@$(PYTHON) -m venv .venv-gpu
	@echo "Installing compilers for GPUs into .venv-gpu: 1.4 GB, once ..."
	.venv-gpu/bin/python -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt --editable .
	version=$$(sed -n 's/^jax==//p' constraints.txt) && \
	  .venv-gpu/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
	  jax-cuda13-plugin==$$version jax-cuda13-pjrt==$$version \
	  nvidia-cuda-nvcc nvidia-nvvm nvidia-cuda-nvdisasm
	@touch $@

clean:
	rm -rf $(VENV) .venv-gpu build dist *.egg-info
