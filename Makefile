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
# milliseconds. Patient boards and buses on a pty mostly wait: one worker runs them beside the rest, which shares the cores.
ALONE := tests/ros tests/faults tests/hil/test_link.py tests/hil/test_servo_times.py $(wildcard tests/hil/test_graph_*.py)

test: setup
	$(BIN)/pytest --durations 25 --numprocesses $$(($$(nproc) + 1)) $(ALONE:%=--ignore %)
	$(BIN)/pytest --durations 25 $(ALONE)

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
