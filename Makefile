# serve test lint bench docs proto soak autobahn clean. Nothing has to be installed or activated first.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
PY := $(VENV)/bin/python
RUN := $(VENV)/.installed
DEV := $(VENV)/.installed-dev
NODE := tests/node_modules/.installed
ARGS ?=

.PHONY: help serve test lint bench docs proto soak autobahn clean system-packages

help:
	@echo "make serve      start a server on http://127.0.0.1:8000 (ARGS='--port 9000' passes flags on)"
	@echo "make test       lint, types, every test but the soak tests"
	@echo "make lint       ruff and mypy"
	@echo "make bench      measure against other servers, into bench/results/"
	@echo "make docs       write the generated pages of docs/reference/"
	@echo "make proto      write the stubs of spec/tellwire.proto"
	@echo "make soak       the tests that take minutes, and other examples of the properties than make test has"
	@echo "make autobahn   the Autobahn test suite against our WebSocket code (needs a Python 2.7)"
	@echo "make clean      remove what these made"

serve: $(RUN)
	@exec $(PY) -m tellwire serve --grpc-port 0 --rtc $(ARGS)

test: lint system-packages $(NODE)
	@# Most of the time goes by in waiting for servers and clocks: four at a time still leave the two cores some room.
	$(PY) -m pytest -n 4 -m "not soak and not browser" $(ARGS) || [ $$? = 5 ]
	@# Playwright runs its loop in greenlets of the tests' own thread, and where one of its tests fails, Python 3.11 may lose
	@# count of its recursion while pytest explains that: so they have processes of their own. (5: ARGS chose none of these.)
	$(PY) -m pytest -n 3 -m "not soak and browser" tests/browser tests/clients tests/docs tests/examples $(ARGS) || [ $$? = 5 ]

lint: $(DEV)
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy

bench: $(DEV)
	$(PY) bench/run.py $(ARGS)

docs: $(DEV)
	$(PY) -m docs.generate

# The path before the = is the one that the stubs import each other by.
proto: $(DEV)
	$(PY) -m grpc_tools.protoc -Itellwire/protocol/proto=spec --plugin=protoc-gen-mypy=$(VENV)/bin/protoc-gen-mypy \
		--plugin=protoc-gen-mypy_grpc=$(VENV)/bin/protoc-gen-mypy_grpc --python_out=src --grpc_python_out=src \
		--mypy_out=quiet:src --mypy_grpc_out=quiet:src tellwire/protocol/proto/tellwire.proto

soak: $(DEV) system-packages $(NODE)
	$(PY) -m pytest -m "soak or hypothesis" --hypothesis-profile=searching $(ARGS)

autobahn: $(DEV)
	$(PY) tests/autobahn/run.py $(ARGS)

clean:
	rm -rf $(VENV) tests/node_modules clients/js/node_modules clients/js/types .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
	find src tests bench docs -name __pycache__ -type d -prune -exec rm -rf {} +

# A Python that is new enough and can make environments: $(PYTHON) where it is given, else the first that will do.
$(PY):
	@for candidate in "$(PYTHON)" python3 python3.14 python3.13 python3.12 python3.11; do \
		if [ -n "$$candidate" ] && "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			echo "making $(VENV) with $$("$$candidate" --version)"; \
			exec "$$candidate" -m venv $(VENV); \
		fi; \
	done; \
	echo "Tellwire needs Python 3.11 or newer with its venv module, and found none. On Debian or Ubuntu:" >&2; \
	echo "    sudo apt-get install python3 python3-venv" >&2; \
	echo "or name one: make PYTHON=/path/to/python3.12 serve" >&2; \
	exit 1

$(RUN): pyproject.toml | $(PY)
	@echo "installing Tellwire into $(VENV) (once; later starts need no network)"
	@$(PY) -m pip install --quiet --editable '.[grpc,webrtc]' || { \
		echo "pip could not install Tellwire's dependencies: see its last lines above." >&2; exit 1; }
	@touch $@

# pip reads dependency groups since 25.1.
$(DEV): pyproject.toml $(RUN)
	@echo "installing the tools for development into $(VENV)"
	@$(PY) -m pip install --quiet "pip>=25.1"
	@$(PY) -m pip install --quiet --group dev
	@touch $@

system-packages:
	@sh tests/system-packages.sh

$(NODE): tests/package.json tests/package-lock.json | system-packages
	@if command -v npm >/dev/null; then cd tests && npm ci --silent --no-audit --no-fund && touch node_modules/.installed; fi
