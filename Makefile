# `make demo` and `make test` do all the set-up on a fresh machine, in a virtual environment of their own.
PYTHON ?= python3
# Another build, for a GPU or a smaller CPU one: make demo TORCH="torch==2.13.0 --index-url URL"
TORCH ?= torch==2.13.0
VENV ?= .venv

BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint bench clean

demo: $(READY)
	@mkdir -p demo-out
	@$(BIN)/python -c "from skimage import data, io; io.imsave('demo-out/photo.png', data.$(PHOTO)(), check_contrast=False)"
	$(BIN)/fmboost upscale demo-out/photo.png demo-out/boosted.png --compare demo-out/compare.png

# A public-domain photograph that comes with scikit-image.
PHOTO ?= astronaut

test: $(READY)
	$(BIN)/python -m pytest -q

# The nodes are typed as the host imports them: in a package that holds the core too.
lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@mkdir -p build && ln -sfn .. build/fmboost_pack
	cd build && $(abspath $(BIN)/mypy) --config-file ../pyproject.toml fmboost_pack/nodes

bench: $(READY)
	@mkdir -p bench-out
	$(BIN)/fmboost bench --json bench-out/bench.json

# torch first and by itself, so that nothing else chooses its build.
$(READY): pyproject.toml Makefile
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[dev]'
	@touch $(READY)

clean:
	rm -rf $(VENV) demo-out bench-out build *.egg-info
