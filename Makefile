# Two commands: `make demo` and `make test`. Both set up .venv by themselves.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PYVER  := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
PINS   := $(addprefix -c ,$(wildcard constraints/$(PYVER).txt))
READY  := $(VENV)/.ready-$(PYVER)
EX     := examples/fashion_mnist
DEMO   := build/demo

.PHONY: demo test types core core-threads

demo: $(READY)
	@mkdir -p $(DEMO)
	$(BIN)/snncc compile $(EX)/cnn_d4.pt --arch $(EX)/models.py:cnn --name cnn --weight-bits 8 \
	    --calibration $(EX)/calibration_256.npz -o $(DEMO)/cnn.snn -f
	$(BIN)/snncc inspect $(DEMO)/cnn.snn
	$(BIN)/snncc verify $(DEMO)/cnn.snn --input $(EX)/test_1000.npz --limit 100
	$(BIN)/snncc run $(DEMO)/cnn.snn --input $(EX)/test_1000.npz
	$(BIN)/snncc run $(DEMO)/cnn.snn --input $(EX)/test_1000.npz --engine event
	$(BIN)/snncc compile $(EX)/residual_d4.pt --arch $(EX)/models.py:residual --name residual \
	    --calibration $(EX)/calibration_256.npz -o $(DEMO)/residual.snn -f
	$(BIN)/snncc compile $(EX)/ssc_d4.pt --arch $(EX)/models.py:ssc --name ssc \
	    --calibration $(EX)/calibration_256.npz -o $(DEMO)/ssc.snn -f
	$(BIN)/snncc compile $(EX)/lif_t4.pt --arch $(EX)/lif_models.py:lif --name lif \
	    --calibration $(EX)/calibration_256.npz -o $(DEMO)/lif.snn -f
	$(BIN)/snncc compile $(EX)/spikeformer_d4.pt --arch $(EX)/spikeformer.py:spikeformer \
	    --name espikeformer --calibration $(EX)/calibration_256.npz -o $(DEMO)/espikeformer.snn -f
	$(BIN)/snncc compile $(EX)/cnn_d4.pt --arch $(EX)/models.py:cnn --name cnn --target loihi2 \
	    --calibration $(EX)/calibration_256.npz -o $(DEMO)/cnn_loihi2.snn -f
	$(BIN)/snncc inspect $(DEMO)/cnn_loihi2.snn resources
	@if $(BIN)/snncc doctor --install-lava > /dev/null; then set -x; \
	    $(BIN)/snncc verify $(DEMO)/cnn_loihi2.snn --engines clocked,event,lava \
	        --input $(EX)/test_1000.npz --limit 20 && \
	    $(BIN)/snncc run $(DEMO)/cnn_loihi2.snn --input $(EX)/test_1000.npz --engine lava \
	        --executor direct; \
	fi

test: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(MAKE) --no-print-directory --output-sync -j 2 types core
	-$(BIN)/snncc doctor --install-lava # where a Python 3.10 runs, tests fail without Lava
	$(BIN)/pytest -q -m "not slow" -n 2 --dist loadfile

types: $(READY)
	$(BIN)/mypy

core: $(READY)
	$(BIN)/cmake -S snncc/backends/event/core -B build/core -DEV_TESTS=ON -DEV_SANITIZE=ON
	$(BIN)/cmake --build build/core -j 2
	$(BIN)/ctest --test-dir build/core --output-on-failure -j 2

# The C tests that use threads, under the thread sanitizer: a minute.
core-threads: $(READY)
	$(BIN)/cmake -S snncc/backends/event/core -B build/threads -DEV_TESTS=ON -DEV_SANITIZE_THREADS=ON
	$(BIN)/cmake --build build/threads -j 2 --target test_team test_session test_memory
	$(BIN)/ctest --test-dir build/threads --output-on-failure -R '^(team|session|memory)$$'

CORE   := $(shell find snncc/backends/event/core -type f)

$(READY): pyproject.toml $(CORE) $(wildcard constraints/*.txt)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q torch==2.13.0
	$(BIN)/pip install -q $(PINS) -e '.[torch,images,dev]'
	@rm -f $(VENV)/.ready-*
	@touch $@
