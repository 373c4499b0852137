# `make demo` scores and reports real pictures, `make test` runs the tests, `make check` the quick ones. All set up what
# they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOWEST := $(VENV)/lowest
DEMO := demo
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/pairloss
BEAM := $(shell sed -n 's/^apache-beam==//p' constraints.txt)
PRISM := $(CACHE)/prism-$(BEAM)/prism

.PHONY: demo test test-slow test-lowest check flink flink-hosts prism prism-binary lint docs bench clean

demo: $(VENV)/.samples
	$(BIN)/pairloss samples --output=$(DEMO)/pairs
	$(BIN)/pairloss run --input='$(DEMO)/pairs/*.parquet' --output=$(DEMO)/run --overwrite \
	  --keep_fields=photo,degradation --slice_by=degradation --gate=docs/demo_rules.yaml
	$(BIN)/pairloss audit report $(DEMO)/run >/dev/null
	@$(BIN)/python -c 'from pathlib import Path; print("report:", Path("$(DEMO)/run/report.html").resolve().as_uri())'

# Some 9 minutes on two cores, in two processes, each of which takes whole files because their tests share fixtures.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile

test: $(VENV)/.test
	$(BIN)/python -m pipeline.weights
	$(PYTEST) -m 'not slow'

# The rest, which .ci/run runs as well. It installs Airflow beside the tests' environment, another 300 MB, and decoders
# of HEIC and JPEG XL, whose absence other tests are about.
test-slow: $(VENV)/.test
	$(BIN)/python -m pipeline.weights
	$(PYTEST) -m 'slow and not hosts'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --constraint=constraints.txt --upgrade \
	  --target=$(VENV)/decoders pi-heif pillow-jxl-plugin
	PYTHONPATH=$(VENV)/decoders $(BIN)/python -m pytest tests/transforms/images/test_extras.py tests/test_fuzz.py

# The fast tests again, with the lowest versions that setup.py admits, for Python 3.11 or 3.12; those of tensorflow-io,
# which loads with none but the lowest TensorFlow; and those of failing uploads, where google-cloud-storage 2 differs.
test-lowest: $(LOWEST)/.installed
	$(LOWEST)/bin/python -m pipeline.weights
	PAIRLOSS_REQUIRE=tensorflow-io $(LOWEST)/bin/python -m pytest -n 2 --dist loadfile \
	  -m 'not (slow or heavy or flink or browser) or tensorflow_io'
	$(LOWEST)/bin/python -m pytest tests/test_gcs_errors.py::TestWriteWhole

# For every commit, under a minute on two cores.
check: lint
	$(PYTEST) -m 'not (slow or heavy or flink or browser)'

# The demo's pairs on a real Flink cluster, which is up only for that, and held against the run without Flink.
flink: $(VENV)/.samples
	$(BIN)/python -m pipeline.samples --output=$(DEMO)/pairs
	$(BIN)/python -m deploy.flink.compare --input='$(DEMO)/pairs/*.parquet' --output=$(DEMO)/flink \
	  --keep_fields=photo,degradation --chunk_pairs=8

# The same on hosts of their own, network namespaces with a store among them. Needs root; `pytest -m hosts` cuts links.
flink-hosts: $(VENV)/.samples $(VENV)/.test
	$(BIN)/python -m pipeline.samples --output=$(DEMO)/pairs
	$(BIN)/python -m deploy.flink.hosts --input='$(DEMO)/pairs/*.parquet' --keep_fields=photo,degradation --chunk_pairs=8

# Beam's local engine in Go, built from its source, and held against the one in Python.
prism: $(VENV)/.test $(PRISM)
	$(BIN)/python -m pytest tests/pipeline/engines/test_prism.py

# `make test` runs Prism's tests where its binary is.
prism-binary: $(PRISM)

$(PRISM):
	@command -v go >/dev/null || { echo "error: building Prism needs Go, which is not installed" >&2; exit 1; }
	GOBIN=$(@D) go install github.com/apache/beam/sdks/v2/go/cmd/prism@v$(BEAM)

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Everything written from the program's own tables: rules.schema.json, the Dataflow template's metadata, tables of docs/.
docs: $(VENV)/.test
	$(BIN)/python -m pipeline.audit.judging.rules
	$(BIN)/python -m deploy.dataflow.metadata >deploy/dataflow/metadata.json
	$(BIN)/python -m benchmarks.docs_tables

bench: $(VENV)/.samples
	$(BIN)/python -m benchmarks.end_to_end
	$(BIN)/python -m benchmarks.accuracy
	$(BIN)/python -m benchmarks.summary

clean:
	rm -rf $(VENV) $(DEMO) *.egg-info

# One marker file per set of extras, so that a second run installs nothing.
$(VENV)/.%: setup.py constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint=constraints.txt --editable='.[$*]'
	@touch $@

# The file pins every package, so that nothing has to be resolved; its first lines hold the command that writes it.
$(LOWEST)/.installed: setup.py constraints-lowest.txt | $(BIN)/python
	$(BIN)/python -m venv --clear $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-compile --requirement=constraints-lowest.txt \
	  --editable=.
	$(LOWEST)/bin/python -m pip check
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	  || { echo "error: Python 3.11 to 3.13 is needed, $(PYTHON) is another; try make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
