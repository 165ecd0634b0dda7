# Seven verbs: demo, test, test-longer, test-all, docs, lint, bench. Each sets up its own environment in .venv; `.ci/run`
# has one more.
PYTHON ?= python3
# The parity tests compare with PyTorch. CONTRIBUTING.md says how to get its small CPU build.
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-longer set-up-newest test-newest test-all docs lint bench clean

demo: $(VENV)/.demo
	rm -rf build/demo
	$(BIN)/jepa-jax demo --output build/demo

# A test process that crashes ends the run: pytest-xdist 3.8 can wait for ever once it has replaced one.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --max-worker-restart 0

# Something of everything, in minutes. Compiling takes most of the time, and half of that goes into machine code that
# runs faster: without it. What one process of a run has compiled, the others find in a folder of the run: many start,
# and most score with the same few small encoders.
SWIFTLY := XLA_FLAGS="--xla_backend_optimization_level=0 $(XLA_FLAGS)"
SHARED := JAX_COMPILATION_CACHE_DIR="$(CURDIR)/$(VENV)/compiled" \
  JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0 JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES=-1
test: $(VENV)/.test
	rm -rf $(VENV)/compiled
	$(SHARED) $(SWIFTLY) $(PYTEST) -m "not exhaustive and not longer"

# What takes five seconds and more each: processes that are killed, programs that are interpreted.
test-longer: $(VENV)/.test
	rm -rf $(VENV)/compiled
	$(SHARED) $(SWIFTLY) $(PYTEST) -m longer

# The face, the layers, scores, and a job from pictures to a table, on another Python and the newest JAX that it takes:
# `make test-newest NEWEST=python3.13`. Without the packages that other tests compare with, which take long to install,
# and without statistics over many spectra, which are NumPy's work.
NEWEST ?= $(shell .ci/newest-python)
NEWEST_TESTS := $(addprefix tests/,test_public_face.py test_docstrings.py layers/test_layers.py \
  scoring/test_scores.py jobs/test_job_upgrade.py cli/test_cli.py)
set-up-newest: $(VENV)-newest/.test
test-newest: set-up-newest
	rm -rf $(VENV)-newest/compiled
	$(subst $(VENV)/,$(VENV)-newest/,$(SHARED) $(SWIFTLY) $(PYTEST)) -m "not exhaustive" -k "not published_spectra" $(NEWEST_TESTS)

# The rest, compiled as users have it: encoders at full width, every make and level.
test-all: $(VENV)/.compilers
	$(PYTEST) -m exhaustive

# build/docs/index.html. Links that lead nowhere and examples that fail are errors.
docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs build/docs

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: $(VENV)/.test
	$(BIN)/python -m benchmarks.run

clean:
	rm -rf $(VENV) $(VENV)-newest build

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e '.[demo]'
	touch $@

$(VENV)/.docs: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e '.[docs]'
	touch $@

# torch goes first: with it installed, nothing later pulls in another build.
$(VENV)/.test: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet '$(TORCH)'
	$(BIN)/python -m pip install --quiet -e '.[test]'
	touch $@

$(VENV)-newest/.test: pyproject.toml
	$(NEWEST) -m venv $(VENV)-newest
	$(VENV)-newest/bin/python -m pip install --quiet -e '.[test-core]'
	touch $@

# The compilers for TPUs and GPUs, in folders of their own: where JAX finds them, it looks for devices. What the
# installed JAX asks for.
LIBTPU := 'from importlib.metadata import requires; print([r for r in requires("jax") if "libtpu" in r][0].split(";")[0])'
JAX := 'from importlib.metadata import version; print(version("jax"))'
APART := $(BIN)/python -m pip install --quiet --no-deps --upgrade --target
$(VENV)/.compilers: $(VENV)/.test
	$(APART) $(VENV)/tpu "$$($(BIN)/python -c $(LIBTPU))" \
	  || echo "no libtpu here: the tests that ask the TPU's compiler will skip"
	$(APART) $(VENV)/cuda jax-cuda13-plugin==$$($(BIN)/python -c $(JAX)) jax-cuda13-pjrt==$$($(BIN)/python -c $(JAX)) \
	  || echo "no XLA for CUDA here: the tests that ask the GPU's compiler will skip"
	touch $@

$(VENV)/.dev: $(VENV)/.test
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $@
