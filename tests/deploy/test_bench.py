"""The bench's own figures, and what they are there to show: our call costs little more than onnxruntime's."""

from __future__ import annotations

import multiprocessing
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from landbridge.bundle import read_bundle
from landbridge.deploy.bench import bench, busy_core, row, timed
from landbridge.deploy.runtime import load_policy
from landbridge.errors import InputError

WEIGHT = np.random.default_rng(0).normal(size=(8, 1)).astype(np.float32)

MakeBundle = Callable[..., Path]


def test_every_case_is_measured_and_drawn(tmp_path: Path, linear_bundle: MakeBundle) -> None:
    figures = bench(linear_bundle(tmp_path / "b", WEIGHT), calls=200, png=tmp_path / "latency.png")
    cases = {line["case"]: line for line in figures["latency"]}
    assert {line["us on"] for line in cases.values()} == {"CPU"}
    calls = {case: line["calls"] for case, line in cases.items()}
    assert calls == {
        "first inference": 1,
        "steady": 200,
        "bare session": 200,
        "after 20 ms idle": 8,
        "beside a busy core": 200,
    }
    assert all(0 < line["p50"] <= line["p99"] <= line["p99.9"] <= line["max"] for line in cases.values())
    with Image.open(tmp_path / "latency.png") as image:
        assert image.format == "PNG"
        assert len(image.convert("L").getcolors() or []) > 20  # more than a blank page
    assert not multiprocessing.active_children()


def test_our_call_costs_ten_microseconds_more_than_a_bare_one_at_most(
    tmp_path: Path, linear_bundle: MakeBundle
) -> None:
    figures = bench(linear_bundle(tmp_path / "b", WEIGHT), calls=2000)
    assert figures["overhead_us CPUExecutionProvider"] <= 10


def test_a_call_allocates_nothing(tmp_path: Path, linear_bundle: MakeBundle) -> None:
    """Neither a new array for the answer nor any memory that Python keeps."""
    policy, obs = load_policy(read_bundle(linear_bundle(tmp_path / "b", WEIGHT))), np.ones(8, np.float32)
    first, address = policy(obs), policy.action.ctypes.data
    tracemalloc.start()
    for _ in range(100):
        policy(obs)
    before, _ = tracemalloc.get_traced_memory()
    for _ in range(1000):
        assert policy(obs) is first
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 1000  # less than a byte per call
    assert policy.action.ctypes.data == address


def test_percentiles_by_hand() -> None:
    assert row("CPUExecutionProvider", "steady", np.arange(1.0, 1002.0)) == {
        "us on": "CPU",
        "case": "steady",
        "calls": 1001,
        "p50": 501.0,
        "p99": 991.0,
        "p99.9": 1000,
        "max": 1001,
    }


def test_rests_are_not_counted() -> None:
    assert timed(lambda _: None, np.zeros((3, 1), np.float32), rest=0.01).max() < 10_000


def test_the_busy_core_is_busy_and_ends() -> None:
    with busy_core():
        (child,) = multiprocessing.active_children()
        process = psutil.Process(child.pid)
        before = process.cpu_times().user
        while process.cpu_times().user - before < 0.05:
            assert process.is_running()
    assert not child.is_alive()


def test_what_cannot_be_measured_is_refused(tmp_path: Path, linear_bundle: MakeBundle) -> None:
    bundle = linear_bundle(tmp_path / "b", WEIGHT)
    with pytest.raises(InputError, match="--calls: is 3"):
        bench(bundle, calls=3)
    for png in (tmp_path / "nowhere" / "x.png", tmp_path / "x.jpeg", tmp_path):
        with pytest.raises(InputError, match=r"--png: is .* name a file that ends in \.png"):
            bench(bundle, png=png)
    with pytest.raises(InputError, match="/proc: cannot be written: nothing can be made in /proc"):
        bench(bundle, png=Path("/proc/x.png"))
    with pytest.raises(InputError, match="asked for CUDAExecutionProvider, running on CPU"):
        bench(bundle, providers=("CUDAExecutionProvider",))
