# One entry for people and CI. `setup` is redone when a package list changes.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup demo test explore check bench clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt ros2_ws/src/landbridge_nodes/setup.cfg
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt -e ".[training,sweep,serial,signing,watch,foxglove,rerun,ros-wheels,dev]" -e ros2_ws/src/landbridge_nodes
	touch $@

demo: setup
	$(BIN)/landbridge demo

# What runs in real time (ROS graphs, boards and buses on a pty) mostly waits. Meanwhile the rest runs on what it leaves of
# the cores, in SCHED_IDLE, which any other process interrupts at once: also those of another user of a shared machine.
REAL_TIME := tests/ros tests/faults tests/hil
IDLE := $(if $(shell command -v chrt),chrt --idle 0,nice -n 19)

test: setup
	rest=$$(mktemp); failed=0; \
	$(IDLE) $(BIN)/pytest --durations 25 --numprocesses $$(nproc) $(REAL_TIME:%=--ignore %) > $$rest 2>&1 & idle=$$!; \
	trap "kill $$idle; rm -f $$rest" EXIT; \
	$(BIN)/pytest --durations 25 $(REAL_TIME) || failed=1; \
	wait $$idle || failed=1; cat $$rest; trap "rm -f $$rest" EXIT; exit $$failed

# The properties on examples that no run has seen; what fails is worth a test of its own.
explore: setup
	$(BIN)/pytest -m hypothesis --hypothesis-profile explore

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	$(BIN)/python benchmarks/latency.py
	$(BIN)/python benchmarks/guard_cost.py
	$(BIN)/python benchmarks/compensation_cost.py
	$(BIN)/python benchmarks/link.py
	$(BIN)/python benchmarks/recorder.py

clean:
	rm -rf $(VENV) demo build install log ros2_ws/build ros2_ws/install ros2_ws/log
