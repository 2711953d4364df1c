# stockpot: `make run` sets everything up and does the main job; `make help` lists every target.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
LINKS  := $(VENV)/links

RECIPE ?= data/wordnet.toml
STORE  ?= runs/store
RUNS   ?= runs
ARGS   ?=
RUN     = $(BIN)/stockpot run $(RECIPE) --store $(STORE) --runs $(RUNS) $(ARGS)

STAGES := ingest split hops propagate sizing partition influence sample hag order loadplan judge codebook quantize pack exchange calibrate warmup train soup reach student infer codeloss

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: data/wordnet.npz help hooks setup warm run plan status verify report inspect test test-long coverage lint format bench bench-coop bench-influence bench-partition bench-pipeline bench-hag bench-soup bench-coded bench-quantize bench-loader bench-step bench-beyond bench-train bench-inference bench-cuda bench-student accuracy clean $(STAGES)

help:  ## list every target
	@grep -hE '^[a-z][a-zA-Z./_ -]*:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-18s %s\n", $$1, $$2}'
	@echo "  make STAGE              build up to one stage: $(STAGES)"
	@echo "  variables: RECIPE=$(RECIPE) STORE=$(STORE) RUNS=$(RUNS) ARGS='--set train.epochs=10'"

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] < (3, 11))' || { echo "stockpot: Python >= 3.11 is needed, found $$($(PYTHON) --version); fix: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "stockpot: Python's venv module is missing; fix: apt-get install python3-venv" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[dev]'
	$(BIN)/stockpot warm recipe
	@touch $(READY)

setup: $(READY)  ## virtual environment, pinned install, and the kernels of `make run` compiled (every other target does it too)

warm: $(READY)  ## compile every kernel, once a machine: runs then wait for none (a run compiles only those that it meets)
	@$(BIN)/stockpot warm

run: $(READY)  ## the main job: set up, build what is missing, train, soup, infer, report
	@$(RUN)

$(STAGES): $(READY)
	@$(RUN) $@

plan: $(READY)  ## what `make run` would do, with bytes and memory; builds nothing
	@$(BIN)/stockpot plan $(RECIPE) --store $(STORE) --runs $(RUNS) $(ARGS)

status: $(READY)  ## which artifacts of the recipe are built
	@$(BIN)/stockpot status $(RECIPE) --store $(STORE) --runs $(RUNS) $(ARGS)

verify: $(READY)  ## check every stored byte of the recipe's artifacts
	@$(BIN)/stockpot verify $(RECIPE) --store $(STORE) --runs $(RUNS) $(ARGS)

report: $(READY)  ## write runs/<name>/report.html again from what is stored
	@$(BIN)/stockpot report $(RECIPE) --store $(STORE) --runs $(RUNS) $(ARGS)

inspect: $(READY)  ## record 0 of split train, readable; ARGS='pack:valid --record 3' another
	@$(BIN)/stockpot inspect $(RECIPE) --store $(STORE) --runs $(RUNS) $(ARGS)

PYTEST := $(BIN)/python -m pytest -m "not long"
HALF   := tests/cli tests/faults tests/pipeline

test: $(READY)  ## set-up and all tests but the long ones, two halves at a time (PYTEST_ARGS='tests/stages -x': those)
ifeq ($(strip $(PYTEST_ARGS)),)
	@said=$$(mktemp) && trap 'rm -f $$said' EXIT; $(PYTEST) $(HALF) > $$said 2>&1 & \
	$(PYTEST) tests $(HALF:%=--ignore=%); second=$$?; wait $$!; first=$$?; cat $$said; exit $$((first | second))
else
	$(PYTEST) $(PYTEST_ARGS)
endif

test-long: $(READY)  ## fault and scale runs: kill -9 at random moments, worker counts, real sizes
	$(BIN)/python -m pytest -m long -o faulthandler_timeout=1800 $(PYTEST_ARGS)

coverage: $(READY)  ## share of the statements that the tests run, child processes included; compiled kernels are not seen
	@rm -f .coverage .coverage.*
	$(BIN)/python -m coverage run -m pytest -m "not long" $(or $(PYTEST_ARGS),tests)
	$(BIN)/python -m coverage combine -q
	$(BIN)/python -m coverage report --skip-covered --skip-empty

lint: $(READY)  ## ruff (all rules, reasons in pyproject.toml) and strict mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@rm -rf $(LINKS) && mkdir -p $(LINKS)/stockpot && ln -s $(CURDIR)/pipeline/* $(CURDIR)/stages $(LINKS)/stockpot
	$(BIN)/mypy  # which follows no setuptools mapping: it reads the package from a folder of links

hooks: $(READY)  ## a pre-commit of git that runs the linters and refuses files of more than 1 MB
	@printf '%s\n' '#!/bin/sh' 'git diff --cached --name-only --diff-filter=A -z | xargs -0 -r ls -ld | awk "\$$5 > 1000000 { print \"too large for the repository: \" \$$NF; bad = 1 } END { exit bad }" && exec make -s lint' > .git/hooks/pre-commit
	@chmod +x .git/hooks/pre-commit

format: $(READY)  ## rewrite the code in the house layout
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: bench-coop bench-influence bench-partition bench-pipeline bench-hag bench-soup bench-quantize bench-loader bench-step bench-beyond bench-train bench-inference  ## every benchmark; results in runs/bench/NAME.json

bench-influence: $(READY)  ## PPR + top-k against torch_geometric get_ppr, alternating runs
	$(BIN)/python -m tests.bench.influence $(ARGS)

bench-partition: $(READY)  ## METIS, KaMinPar and stream: seconds, cut, balance, memory against projection
	$(BIN)/python -m tests.bench.partition $(ARGS)

bench-pipeline: $(READY)  ## every stage on real graphs, memory against projection, and growth (ARGS=--full: 62M edges too)
	$(BIN)/python -m tests.bench.pipeline $(ARGS)

bench-coded: $(READY)  ## first layer on codes against decode + GEMM (ARGS=--epochs: epochs on packed codes, too)
	$(BIN)/python -m tests.bench.coded $(ARGS)

bench-coop: $(READY)  ## sampled batches: speed against DGL (ARGS='--dgl DIR/bin/python'), vertices a layer, rows read again by kappa and by load plans
	$(BIN)/python -m tests.bench.coop $(ARGS)

bench-hag: $(READY)  ## shared partial sums: what the search finds and costs; products, training and packed records by it
	$(BIN)/python -m tests.bench.hag $(ARGS)
	$(BIN)/python -W ignore -m tests.bench.hag_products
	$(BIN)/python -m tests.bench.hag_sequence

bench-soup: $(READY)  ## souping on validation records against GIS on the full graph: seconds, memory (ARGS='--cases --accuracy': gains)
	$(BIN)/python -m tests.bench.soup $(ARGS)

bench-quantize: $(READY)  ## features' codes: error at equal bytes against BiFeat's, auto's choice; encoding, decoding, tiers, epochs on codes
	$(BIN)/python -m tests.bench.quantize $(ARGS)
	$(BIN)/python -m tests.bench.codecs
	$(BIN)/python -m tests.bench.tiers
	$(BIN)/python -m tests.bench.coded --epochs

bench-beyond: $(READY)  ## training where features do not fit in memory, against memory-mapped loops (ARGS='--dgl DIR --graphbolt PYTHON')
	$(BIN)/python -W ignore -m tests.bench.beyond $(ARGS)

bench-student: $(READY)  ## what narrows a student's gap on nodes it was not taught, on the run in runs/wordnet (ARGS='WHERE --kept test')
	$(BIN)/python -m tests.bench.student $(or $(ARGS),runs/wordnet)

bench-train: $(READY)  ## CPU seconds to an accuracy against sampling loaders (ARGS='--dgl DIR', --others, --full)
	$(BIN)/python -W ignore -m tests.bench.training $(ARGS)

bench-inference: $(READY)  ## CPU seconds of inference on records against a sampling loader (ARGS='--dgl DIR')
	$(BIN)/python -W ignore -m tests.bench.inference $(ARGS)

bench-cuda: $(READY)  ## training and inference on one GPU against a CPU sampler that feeds it, in 8 minutes (ARGS='--dgl DIR'; --device cpu)
	$(BIN)/python -W ignore -m tests.bench.cuda $(ARGS)

bench-loader: $(READY)  ## a plain loop, DataLoader and Lightning over the run in runs/wordnet (ARGS=WHERE: another): same batches, CPU seconds
	$(BIN)/python -m tests.bench.loader $(ARGS)

bench-step: $(READY)  ## the training step of a recipe against its products and one pass over each activation; what a batch costs above its copy
	$(BIN)/python -W ignore -m tests.bench.step $(ARGS)

accuracy: $(READY)  ## the accuracy table of stages/README.md: stockpot against full-batch training (about an hour)
	$(BIN)/python -m tests.bench.accuracy $(ARGS)

data/wordnet.npz: $(READY)  ## rebuild the embedded graph from Debian's wordnet-base (WORDNET=/usr/share/wordnet)
	$(BIN)/python -m stockpot.stages.ingest.sources.wordnet $(or $(WORDNET),/usr/share/wordnet) $@

clean:  ## remove the virtual environment and caches; artifacts under runs/ stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache *.egg-info
