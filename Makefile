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

# ROS graphs have the machine to themselves, since their processes start with real-time priority, and so has what claims
# milliseconds. They mostly wait, as patient boards and buses on a pty do, which follow in two workers; meanwhile what has
# no real time runs on what they leave of the cores: in SCHED_IDLE, which any other process interrupts at once.
ALONE := tests/ros tests/faults tests/hil/test_link.py tests/hil/test_servo_times.py $(wildcard tests/hil/test_graph_*.py)
BOARDS := $(filter-out $(ALONE), $(wildcard tests/hil/test_*.py))
IDLE := $(if $(shell command -v chrt),chrt --idle 0)

test: setup
	rest=$$(mktemp); failed=0; \
	$(IDLE) $(BIN)/pytest --durations 25 --numprocesses $$(nproc) --ignore tests/hil --ignore tests/ros --ignore tests/faults \
		> $$rest 2>&1 & idle=$$!; trap "kill $$idle; rm -f $$rest" EXIT; \
	$(BIN)/pytest --durations 25 $(ALONE) || failed=1; \
	$(BIN)/pytest --durations 25 --numprocesses 2 $(BOARDS) || failed=1; \
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
