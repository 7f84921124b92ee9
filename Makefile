# Each target does its whole set-up: see `make help`.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help venv venv-test demo fabric run test test-full lint dist test-dist clean FORCE

# What an installation is made from; the installs are editable, so changes of Python modules need none.
INPUTS := pyproject.toml setup.py MANIFEST.in tools/setup.sh mcastd/__init__.py mcastd/kernel/_native_build.py \
	$(wildcard mcastd/kernel/native/*) \
	clients/examples/controller/pyproject.toml \
	clients/python/pyproject.toml clients/python/setup.py clients/python/MANIFEST.in $(shell find proto -name '*.proto')

# A virtual environment that came with a copied tree belongs to the tree it was copied from.
OWN := $(if $(filter $(CURDIR),$(shell cat .venv/.root 2>/dev/null)),,FORCE)
WORKERS ?= 4

help: ## Show this list.
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 12

venv: .venv/.installed ## Make .venv with the programs in .venv/bin.
	@:

venv-test: .venv/.installed-test

.venv/.installed: $(INPUTS) $(OWN)
	@sh tools/setup.sh
	@touch $@

.venv/.installed-test: $(INPUTS) clients/node/package-lock.json $(OWN)
	@sh tools/setup.sh test
	@touch .venv/.installed $@

demo: venv ## Show the daemon forwarding packets between network namespaces of its own.
	@.venv/bin/python demo/demo.py

fabric: venv ## Show a controller and a leaf-spine fabric of routers, in network namespaces of its own.
	@.venv/bin/python demo/fabric/fabric.py

run: venv ## Start the daemon on this host.
	@.venv/bin/mcastd serve

# Workers outnumber cores: many tests wait for packets and timers.
test: venv-test ## Run the whole suite: ruff, mypy and buf included.
	@PATH="$(CURDIR)/.venv/bin:$$PATH" .venv/bin/python -m pytest -n $(WORKERS) --dist=loadgroup $(PYTEST_ARGS)

test-full: venv-test ## Run the whole suite with what takes long, at full size: an hour.
	@MCASTD_TEST_FULL=1 PATH="$(CURDIR)/.venv/bin:$$PATH" .venv/bin/python -m pytest -n $(WORKERS) --dist=loadgroup $(PYTEST_ARGS)

lint: venv-test ## Run ruff and mypy alone.
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy

dist: ## Build sdists, wheels and the .deb into dist/ (on Debian or Ubuntu).
	@sh tools/packaging/setup.sh
	@build/tools/bin/python -m tools.packaging

test-dist: venv-test ## Test what `make dist` builds: twice the same, lintian, installed in a Debian of its own (as root).
	@sh tools/packaging/setup.sh test
	@MCASTD_TEST_DIST=1 .venv/bin/python -m pytest tests/packaging -o faulthandler_timeout=890 $(PYTEST_ARGS)

clean: ## Remove what was built and installed.
	rm -rf .venv build dist *.egg-info clients/python/build clients/python/src/*.egg-info
	rm -rf clients/node/node_modules clients/node/dist clients/node/src/gen
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -f mcastd/kernel/_native.c mcastd/kernel/*.so mcastd/kernel/*.o
	find clients/python/src \( -name '*_pb2*' -o -name descriptors.binpb \) -delete
	find . -name __pycache__ -not -path './.git/*' -exec rm -rf {} +

FORCE:
