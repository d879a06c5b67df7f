"""`landbridge bench`: how long one inference takes on this machine, on every back end it has."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from landbridge.bundle import Bundle, read_bundle
from landbridge.deploy.engine import CUDA, TENSORRT
from landbridge.deploy.runtime import Policy, load_policy
from landbridge.errors import InputError
from landbridge.files import require_folder
from landbridge.onnx_session import CPU
from landbridge.spec import require_at_least

BACK_ENDS = (CPU, CUDA, TENSORRT)
IDLE_SHARE = 0.04  # of the calls are made after a rest of one control period each
BLOCK = 50  # calls of ours and of bare onnxruntime by turns: a machine's other work then slows both alike

Microseconds = NDArray[np.float64]


def bench(
    bundle: Path, /, calls: int = 5000, providers: tuple[str, ...] = (), png: Path | None = None
) -> dict[str, Any]:
    """Measure inference on every back end this machine has: steady, first, after idle, beside a busy core.

    `overhead_us` is the median of a call of ours minus that of the bare session with the same bound buffers.

    Example: landbridge bench policy.bundle --png latency.png

    Args:
        bundle: Folder or zip written by `landbridge export`.
        calls: Inferences per measurement.
        providers: onnxruntime execution providers, by default those of CPU, CUDA and TensorRT that are there; or
            `tensorrt`, with an engine of fp32.
        png: Plot to write, of the share of calls that take longer.
    """
    require_at_least("--calls", calls, BLOCK)
    if png is not None:
        _require_drawable(png)
    read = read_bundle(bundle)
    available, load = ort.get_available_providers(), os.getloadavg()[0]
    measured = {
        name: measure(read, name, calls) for name in providers or [name for name in BACK_ENDS if name in available]
    }
    if png is not None:
        draw(measured, png, f"{read.manifest.robot}, {platform.processor() or platform.machine()}")
    return {
        "bundle": str(bundle),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {load:.2f} before",
        "onnxruntime": ort.__version__,
        **{
            f"overhead_us {name}": float(np.median(times["steady"]) - np.median(times["bare session"]))
            for name, times in measured.items()
        },
        "latency": [row(name, case, times) for name, cases in measured.items() for case, times in cases.items()],
        **({} if png is None else {"png": str(png)}),
    }


def measure(bundle: Bundle, provider: str, calls: int) -> dict[str, Microseconds]:
    """Times [us] of single inferences on random observations, by case.

    Raises:
        InputError: The provider is not what would run, or golden vectors differ on it.
    """
    policy = load_policy(bundle, (provider,), strict=True)
    obs = np.random.default_rng(0).normal(size=(BLOCK, policy.obs.shape[1])).astype(np.float32)
    fresh = Policy(policy.graph.again())
    first = timed(fresh, obs[:1])
    steady, bare = [], []
    run = policy.graph.run
    for _ in range(-(-calls // BLOCK)):
        steady.append(timed(policy, obs))
        bare.append(timed(lambda _: run(), obs))
    period = bundle.robot.control_dt
    idle = [timed(policy, obs[:1], rest=period) for _ in range(max(1, round(calls * IDLE_SHARE)))]
    with busy_core():
        busy = [timed(policy, obs) for _ in range(-(-calls // BLOCK))]
    return {
        "first inference": first,
        "steady": np.concatenate(steady),
        "bare session": np.concatenate(bare),
        f"after {period * 1000:g} ms idle": np.concatenate(idle),
        "beside a busy core": np.concatenate(busy),
    }


def timed(infer: Callable[[Any], Any], rows: NDArray[np.float32], rest: float = 0.0) -> Microseconds:
    """Time [us] of `infer` on each row (n,), after `rest` seconds of sleep each."""
    times = np.empty(len(rows))
    for i, row in enumerate(rows):
        if rest:
            time.sleep(rest)
        start = time.perf_counter_ns()
        infer(row)
        times[i] = time.perf_counter_ns() - start
    return times / 1000


@contextmanager
def busy_core() -> Iterator[None]:
    """Another process that computes without pause."""
    context = multiprocessing.get_context("spawn")
    started = context.Event()
    process = context.Process(target=_compute, args=(started,), daemon=True)
    process.start()
    started.wait()
    try:
        yield
    finally:
        process.kill()
        process.join()


def _compute(started: Event) -> None:
    started.set()
    while True:
        pass


def row(provider: str, case: str, times: Microseconds) -> dict[str, Any]:
    """One line of the table; `max` alone speaks for a single call."""
    shown = zip(("p50", "p99", "p99.9", "max"), np.percentile(times, [50, 99, 99.9, 100]), strict=True)
    return {
        "us on": provider.removesuffix("ExecutionProvider"),
        "case": case,
        "calls": len(times),
        **{name: _rounded(us) for name, us in shown},
    }


def _rounded(us: float) -> float:
    return round(float(us), 1) if us < 1000 else round(float(us))


def _require_drawable(png: Path) -> None:
    """Raise InputError, before anything is measured, unless a plot can be written there."""
    if importlib.util.find_spec("matplotlib") is None:
        raise InputError("--png", "matplotlib is not installed", "pip install matplotlib, or leave out --png")
    if png.suffix != ".png" or png.is_dir() or not png.parent.is_dir():
        raise InputError("--png", f"is {png}", "name a file that ends in .png, in a folder that exists")
    require_folder(png.parent)


def draw(measured: dict[str, dict[str, Microseconds]], png: Path, title: str) -> None:
    """The share of calls that take longer, per back end and case: p99 is where a curve crosses 10^-2."""
    from matplotlib.figure import Figure

    figure = Figure((11, 1 + 3 * len(measured)), layout="constrained")
    rows = figure.subplots(len(measured), 1, squeeze=False, sharex=True)
    for axes, (provider, cases) in zip(rows[:, 0], measured.items(), strict=True):
        for case, times in cases.items():
            if len(times) == 1:
                continue
            p50, p99 = map(_rounded, np.percentile(times, [50, 99]))
            label = f"{case}: p50 {p50:g}, p99 {p99:g} us of {len(times)} calls"
            axes.step(np.sort(times), 1 - np.arange(len(times)) / len(times), where="post", label=label)
        axes.set(xscale="log", yscale="log", ylabel="share of calls that take longer", title=f"{title}: {provider}")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))  # beside: tails may go anywhere
    rows[-1, 0].set_xlabel("one inference [us]")
    figure.savefig(png, dpi=120)
