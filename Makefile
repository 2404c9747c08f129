# Two commands are all a newcomer needs: `make serve` and `make test`. Each sets up what it needs and says so.
SHELL := /bin/bash
DEVICE ?= cpu
VENV ?= .venv
BIN := $(VENV)/bin
export PYTHONUNBUFFERED := 1
SITE := import sysconfig; print(sysconfig.get_path('purelib'))

.PHONY: help setup serve test compat test-cluster test-gpu quick check check-docker chaos fmt bench bench-vllm soak soak-hour examples train train-quick lock model clean
.DEFAULT_GOAL := help

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup:  ## environment in .venv (DEVICE=cuda for NVIDIA GPUs)
	@VENV=$(VENV) requirements/setup.sh $(DEVICE) dev

model: setup  ## a small random model of the true architecture, in models/random
	@[ -f models/random/config.json ] || $(BIN)/python -m training.random_checkpoint --out models/random

serve:  ## serve (settings: TESSERA_* variables, or ARGS="--port 9000"); installs only what serving needs
	@VENV=$(VENV) requirements/setup.sh $(DEVICE) run
	@exec $(BIN)/tessera serve $(ARGS)

quick: setup  ## the quick tests, in parallel: no engine, no browser, nothing slow
	@$(BIN)/python -m pytest $(ARGS)

test: setup  ## all tests but `make chaos`; those that share a server or an engine run in one process
	@$(BIN)/python -m pytest -m "not (chaos or cluster)" $(ARGS)

test-gpu: setup  ## what needs a GPU: kernels, the engine against transformers, the bundled model (DEVICE=cuda)
	@REQUIRE_GPU=1 $(BIN)/python -m pytest -m "" tests/model_executor/kernels/test_triton.py \
	  tests/model_executor/kernels/test_vision_ops.py \
	  tests/engine/test_gpu.py tests/engine/test_exactness.py tests/e2e/test_bundled_model.py $(ARGS)

check: setup  ## lint, format, spelling, types (of the page's modules, too, where Node.js is), imports, generated documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	requirements/web/check.sh
	$(BIN)/python -m tools.settings_docs --check
	$(BIN)/python -m tools.error_docs --check
	$(BIN)/python -m tools.media_docs --check

test-cluster: setup  ## several servers with real parts: Redis, HAProxy (apt), an S3 server and Ray (in .venv-cluster)
	@[ -x .venv-cluster/bin/python ] || $(BIN)/python -m venv .venv-cluster
	@$(BIN)/python -c "$(SITE)" > "$$(.venv-cluster/bin/python -c "$(SITE)")/base.pth"
	@.venv-cluster/bin/python -m pip install --quiet --requirement requirements/cluster.txt
	@REQUIRE_CLUSTER=1 .venv-cluster/bin/python -m pytest -n0 -m "" tests/cluster tests/e2e/test_engine_pool.py $(ARGS)

compat: setup  ## clients of others against a server, each in an environment of its own in .venv-compat (ARGS="anthropic claude-code")
	@$(BIN)/python -m tests.compat $(ARGS)

check-docker:  ## build the CPU image and try it with compose; needs Docker (ARGS="--port 9000")
	@python3 docker/check.py $(ARGS)

fmt: setup  ## format and mend what can be mended; write generated documentation
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python -m tools.settings_docs --write
	$(BIN)/python -m tools.error_docs --write
	$(BIN)/python -m tools.media_docs --write

bench: model  ## side-by-side measurements
	@OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m benchmarks $(ARGS)
	@OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m benchmarks.mrope
	@OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m benchmarks.media --model models/random
	@OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m benchmarks.executor

bench-vllm: setup  ## the bundled model in alternating rounds against stock `vllm serve` (half an hour; ARGS="--model FOLDER")
	@requirements/stock_vllm.sh
	@OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m benchmarks.against_vllm $(ARGS)

soak: setup  ## thirty-two clients at once for two minutes: streams stay whole, memory stays flat
	@SOAK_S=120 $(BIN)/python -m pytest tests/e2e/test_soak.py -s $(ARGS)

chaos: setup  ## processes killed and frozen under load, for ten minutes: what clients see, and how soon all is well
	@$(BIN)/python -m pytest -n0 -m "" tests/chaos -s $(ARGS)

soak-hour: setup  ## the soak for an hour
	@SOAK_S=3600 $(BIN)/python -m pytest -n0 -m "" --timeout=5400 tests/e2e/test_soak.py -s $(ARGS)

examples: setup  ## run the examples in clients/examples against a server (Node.js, LangChain, LlamaIndex)
	@[ -x .venv-examples/bin/python ] || $(BIN)/python -m venv .venv-examples
	@.venv-examples/bin/python -m pip install --quiet --requirement clients/examples/requirements.txt
	@REQUIRE_NODE=1 REQUIRE_EXAMPLES=1 $(BIN)/python -m pytest tests/clients/test_examples.py tests/clients/test_npm_openai.py $(ARGS)

train: setup  ## train our own small model, or go on with it (five minutes on one H200, hours on a CPU; in runs/)
	@$(BIN)/python -m training train

train-quick: setup  ## the same recipe cut down to minutes
	@$(BIN)/python -m training quick

lock:  ## write requirements/*.lock from what is installed in .venv
	@$(BIN)/python requirements/lock.py

clean:  ## remove the environment and the generated model
	rm -rf $(VENV) models *.egg-info
