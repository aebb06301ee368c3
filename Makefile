# Everything from a bare machine that has Python 3.11 or newer: the first target that needs it makes the environment.

# Another interpreter goes into an environment of its own: make PYTHON=/usr/bin/python3.11 VENV=.venv-debian run
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
WORKERS ?= 2
TEST_FLAGS ?=
CONNECTIONS ?= 5000
SEED ?= 1
SLACK ?= 1
PROFILE_FLAGS ?=
BYTECODE_FLAGS ?=

.PHONY: run test setup lint types cov docs conformance matrix autobahn bench bench-peers bench-compare \
  bytecodes figures profile fuzz mutation wheel lock clean all

run: $(READY) ## serve the quickstart on http://127.0.0.1:8080/mcp
	$(BIN)/sluiceway run

test: $(READY) ## every test but the conformance suite
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup -m "not conformance" $(TEST_FLAGS)

setup: $(READY)

$(READY): pyproject.toml requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 run")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes --only-binary :all: -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	mkdir -p .typing/sluiceway
	for room in pipeline middlewares transports; do ln -sfn ../../$$room .typing/sluiceway/$$room; done
	touch $@

lint: $(READY) ## format, lint, async rules, spelling, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	git ls-files "pipeline/*.py" "middlewares/*.py" "transports/*.py" \
	  | xargs -P $(WORKERS) -n 50 $(BIN)/flake8-async --enable ASYNC101,ASYNC102,ASYNC103,ASYNC104,ASYNC120
	$(BIN)/codespell
	$(BIN)/lint-imports --no-logo

types: $(READY) ## two checkers over all packages
	$(BIN)/mypy -p sluiceway
	$(BIN)/basedpyright

cov: $(READY) ## branch coverage, with the bounds that CI holds
	$(BIN)/coverage erase
	$(MAKE) test TEST_FLAGS="--cov --cov-branch --cov-report="
	$(BIN)/coverage report --include 'pipeline/*,middlewares/*' --fail-under 95
	$(BIN)/coverage report --include 'transports/*' --fail-under 90

docs: $(READY) ## the parts of docs/ and configs/ that are made from the declarations
	$(BIN)/sluiceway schema > configs/sluiceway.schema.json
	$(BIN)/sluiceway schema --tests > configs/sluiceway_test.schema.json
	$(BIN)/python -c "from sluiceway.pipeline.config.describe import reference; print(reference(), end=\"\")" > docs/reference.md

conformance: $(READY) ## the official suite through the gateway, both eras; fails on any difference
	$(BIN)/python tests/conformance/run.py

matrix: $(READY) ## every kind of client at every kind of upstream; prints the table, and keeps it in docs/matrix.md
	$(BIN)/python -m pytest -q -n $(WORKERS) -m matrix tests/transports/matrix
	cd tests/transports/matrix && ../../../$(BIN)/python -m crossing.crossings | tee ../../../docs/matrix.md

autobahn: $(READY) ## the Autobahn cases against both WebSocket faces; fails on any that is not OK or listed
	$(BIN)/python tests/autobahn/run.py

bench: $(READY) ## every bench of one process, in short form; names what is over its bound (SLACK=1.5 on a busy machine)
	$(BIN)/python bench/all.py --slack $(SLACK)

bench-peers: $(READY) ## ours, its peers and nginx, in one run of nine minutes; gets peers from Debian and the registries
	$(BIN)/python bench/peers --json .bench/peers.json --html .bench/peers.html

bench-compare: $(READY) ## a quick run of peers; fails if ours cost more, by nginx's cost in the same run, than in the kept one
	$(BIN)/python bench/peers --quick --compare bench/results/peers.json

bytecodes: $(READY) ## bytecodes of one call, by part of the gateway: repeat within a per cent on any machine
	$(BIN)/python bench/bytecodes.py $(BYTECODE_FLAGS)

figures: $(READY) ## a full run of everything that docs/performance.md tells figures of, kept and put into the page
	$(BIN)/python bench/peers --json bench/results/peers.json --html .bench/peers.html
	for each in workers core layers large idle http2 claims instructions bytecodes; do $(BIN)/python bench/$$each.py --json bench/results/$$each.json; done
	$(BIN)/python bench/account.py

profile: $(READY) ## a flame graph and shares of layers of a gateway under load, into .bench/profile/
	$(BIN)/python bench/flame.py $(PROFILE_FLAGS)

fuzz: $(READY) ## connections of rubbish and almost-requests at a worker; CONNECTIONS=1000000 is goal R1
	$(BIN)/python bench/fuzz.py --connections $(CONNECTIONS) --seed $(SEED)

mutation: $(READY) ## does the suite notice when gate, codec, chain or configuration are broken?
	$(BIN)/python bench/mutation.py

wheel: $(READY)
	$(BIN)/python -m build --wheel

lock: ## renew requirements.lock: hashes, no hosts
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --extra dev --no-annotate --custom-compile-command 'make lock' -o requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) .typing build dist *.egg-info .coverage* .conformance .autobahn .mcp1

all: lint types cov conformance autobahn
