"""Gradient steps per second of our trainer, beside peers' trainers as they are.

    python benchmarks/throughput.py --corl ~/src/CORL --odrl ~/src/off-dynamics-rl
    python benchmarks/throughput.py --corl ~/src/CORL --odrl ~/src/off-dynamics-rl --device cuda

Part one has the shapes of D4RL's walker2d (obs 17, action 6), 128 source and 128 target rows per step and two hidden
layers of 256, with CORL's hyperparameters for everyone. Part two has our own shapes and defaults, and shows what an
alignment costs over the plain agent. Part three trains several seeds at once, and counts the steps of all. One thread;
the contestants take turns, a slice each per round, so that they meet the same machine; ratios are taken within a round.
Seconds are the process's CPU time, and with a GPU the wall's. The peers' code is not part of this repository: check out
https://github.com/tinkoff-ai/CORL and https://github.com/OffDynamicsRL/off-dynamics-rl and give the paths.
Writes `results/throughput.json`, or `throughput_cuda.json`.
"""

from __future__ import annotations

import importlib.util
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Literal
from unittest.mock import MagicMock, patch

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from landbridge.errors import InputError
from landbridge.provenance import commit
from landbridge.robot import load_robot
from landbridge.task import load_task
from landbridge.training.agents.iql import IQL, IQLConfig
from landbridge.training.alignments.base import BLOCK, Alignment
from landbridge.training.alignments.corrected import CorrectedConfig
from landbridge.training.alignments.dara import DARAConfig
from landbridge.training.alignments.density_ratio import DensityRatioConfig
from landbridge.training.alignments.domains import ClassifierConfig
from landbridge.training.alignments.dynamics import DynamicsConfig
from landbridge.training.alignments.igdf import IGDFConfig
from landbridge.training.alignments.otdf import OTDFConfig
from landbridge.training.alignments.tabb import TabbConfig
from landbridge.training.alignments.vgdf import VGDFConfig
from landbridge.training.assembly import build
from landbridge.training.config import AlignmentName, TrainConfig
from landbridge.training.dataset import Normaliser, Transitions
from landbridge.training.loop import block, join, matmul_precision
from landbridge.training.predictor import PredictorConfig
from landbridge.training.prior import PriorConfig
from landbridge.training.statistics import bootstrap, median
from landbridge.training.trainer import Trainer

RESULTS = Path(__file__).parent / "results"
OBS, ACTION = 17, 6  # D4RL walker2d
ROWS = 128
TARGET_ROWS = 5_000
HIDDEN = 256
STEPS = 1_000_000  # of the cosine schedule
UNUSED = ("d4rl", "gym", "pyrallis", "tqdm", "wandb")  # imported by the peers, not used by their updates
ALIGNMENTS: tuple[AlignmentName, ...] = (
    "none", "dynamics", "tabb", "corrected", "igdf", "dara", "density_ratio", "otdf", "vgdf",
)  # fmt: skip

OURS: tuple[tuple[str, bool, Literal["highest", "medium"]], ...] = (
    ("ours eager", False, "highest"),
    ("ours compiled", True, "highest"),
    ("ours compiled, bfloat16 products", True, "medium"),  # of a CPU that has them; on a GPU TF32
)
PROFILED = 32  # steps
PREDICTOR = PredictorConfig(source_steps=10, steps=10)  # what it knows does not change what a step costs
CLASSIFIERS = ClassifierConfig(steps=10)
QUICK = TrainConfig(
    compile=True,
    steps=STEPS,
    dara=DARAConfig(classifiers=CLASSIFIERS),
    density_ratio=DensityRatioConfig(classifiers=CLASSIFIERS),
    otdf=OTDFConfig(iterations=1, prior=PriorConfig(steps=10)),
    vgdf=VGDFConfig(predictor=PREDICTOR),
    dynamics=DynamicsConfig(predictor=PREDICTOR),
    tabb=TabbConfig(predictor=PREDICTOR),
    corrected=CorrectedConfig(predictor=PREDICTOR),
    igdf=IGDFConfig(steps=10),
)

Contestant = tuple[Callable[[int], object], int]  # takes that many gradient steps, of that many policies at once


@dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
        corl: Checkout of CORL; its contestant is left out without one.
        odrl: Checkout of off-dynamics-rl; likewise.
        rounds: Slices per contestant.
        slice_steps: Gradient steps per slice.
        source_rows: Source transitions in memory in part one.
        robot: Robot of parts two and three.
        device: Where everybody trains.
        seeds: How many at once, in part three.
    """

    corl: Path | None = None
    odrl: Path | None = None
    rounds: int = 10
    slice_steps: int = BLOCK
    source_rows: int = 1_000_000
    robot: str = "furuta"
    device: Literal["cpu", "cuda"] = "cpu"
    seeds: tuple[int, ...] = (1, 2, 4, 8)


def main(options: Options) -> None:
    """Measure the parts, print and record them."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    console = Console()
    parts = [
        ("walker2d shapes", "corl iql" if options.corl else "ours eager", _peers(options)),
        (f"{options.robot}, defaults, compiled", "none", _alignments(options)),
        (f"{options.robot}, defaults, compiled, seeds at once", f"{options.seeds[0]}", _seeds(options)),
    ]
    found: dict[str, Any] = {}
    for title, base, contestants in parts:
        rates = _race(contestants, options)
        rows = {name: _row(rate, rates[base]) for name, rate in rates.items()}
        on_gpu = options.device == "cuda"
        table = Table("contestant", "steps per s", f"against {base}", "95 %", *["GPU busy"] * on_gpu, title=title)
        for name, row in rows.items():
            interval = f"{row['ratio_low']:.2f} .. {row['ratio_high']:.2f}"
            cells = [name, f"{row['steps_per_s']:.0f}", f"{row['ratio']:.2f}", interval]
            if on_gpu:
                row["gpu_busy"] = _kernel_seconds(contestants[name]) * row["steps_per_s"]
                cells.append(f"{row['gpu_busy']:.0%}")
            table.add_row(*cells)
        console.print(table)
        found[title] = rows
    machine = torch.cuda.get_device_name() if options.device == "cuda" else platform.processor() or platform.machine()
    settings = {name: value for name, value in vars(options).items() if name not in ("corl", "odrl")}
    facts = {"commit": commit(), "machine": machine, "torch": torch.__version__, "settings": settings, "parts": found}
    name = "throughput.json" if options.device == "cpu" else f"throughput_{options.device}.json"
    (RESULTS / name).write_text(json.dumps(facts, indent=2) + "\n")


def _race(contestants: dict[str, Contestant], options: Options) -> dict[str, NDArray[np.float64]]:
    """Steps per second (rounds,) of each, after one slice of warm-up (compilation)."""
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(options.rounds + 1):
        for name, (step, each) in contestants.items():
            began = _now(options)
            step(options.slice_steps)
            if turn > 0:
                rates[name].append(each * options.slice_steps / (_now(options) - began))
    return {name: np.array(values) for name, values in rates.items()}


def _kernel_seconds(contestant: Contestant) -> float:
    """What the GPU computes in a step, each of several seeds' counted; profiled, so not in the race."""
    step, each = contestant
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        step(PROFILED)
        torch.cuda.synchronize()
    return sum(event.device_time_total for event in seen.events()) / 1e6 / PROFILED / each


def _now(options: Options) -> float:
    if options.device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def _row(rates: NDArray[np.float64], base: NDArray[np.float64]) -> dict[str, float]:
    """Medians, and a bootstrap interval of the median ratio of neighbouring slices."""
    ratios = rates / base
    low, high = bootstrap(ratios[:, None], median)
    return {
        "steps_per_s": float(np.median(rates)),
        "ratio": float(np.median(ratios)),
        "ratio_low": low,
        "ratio_high": high,
    }


def _peers(options: Options) -> dict[str, Contestant]:
    rng = np.random.default_rng(0)
    source, target = (_synthetic(rng, rows, OBS, ACTION) for rows in (options.source_rows, TARGET_ROWS))
    contestants: dict[str, Contestant] = {}
    if options.corl is not None:
        contestants["corl iql"] = _corl(options.corl, options.device, source, target)
    if options.odrl is not None:
        for name in ("iql", "igdf"):
            contestants[f"odrl {name}"] = _odrl(options.odrl, options.device, name, source, target)
    for name, compiled, matmul in OURS:
        contestants[name] = _ours(
            source, target, replace(QUICK, device=options.device, compile=compiled, matmul=matmul)
        )
    return contestants


def _synthetic(rng: np.random.Generator, rows: int, obs: int, action: int) -> Transitions:
    """Numbers of the right shapes: what an update costs does not depend on them."""
    observation = rng.standard_normal((rows, obs), np.float32)
    return Transitions(
        obs=observation,
        action=rng.uniform(-1, 1, (rows, action)).astype(np.float32),
        reward=rng.standard_normal(rows, np.float32),
        next_obs=observation + 0.1 * rng.standard_normal((rows, obs), np.float32),
        terminated=rng.random(rows) < 0.001,
        episode=np.arange(rows) // 1000,
    )


def _ours(source: Transitions, target: Transitions, how: TrainConfig) -> Contestant:
    config = IQLConfig(hidden=(HIDDEN, HIDDEN), gamma=0.99, polyak=0.005, lr=3e-4, expectile=0.7, weight_temp=3.0)
    agent = IQL(OBS, ACTION, config, STEPS).to(how.device)
    agent.generator = torch.Generator(how.device)
    rows = [torch.from_numpy(_packed(data)).to(how.device) for data in (source, target)]
    mix: Any = Alignment(None, None)  # type: ignore[arg-type]  # the naive mix asks nothing of its context
    whole = replace(how, rows=ROWS, target_share=1.0, iql=config)
    return _driven([Trainer(whole, agent, mix, rows[0], rows[1], Path())])


def _driven(trainers: list[Trainer]) -> Contestant:
    if len(trainers) > 1:
        join(trainers)

    def steps(count: int) -> None:
        until = trainers[0].step + count
        with matmul_precision(trainers[0].config.matmul):
            while trainers[0].step < until:
                block(trainers, until, lambda trainer, metrics: None)

    return steps, len(trainers)


def _packed(data: Transitions) -> NDArray[np.float32]:
    columns = [data.obs, data.action, data.next_obs, data.reward[:, None], ~data.terminated[:, None]]
    return np.concatenate([column.astype(np.float32) for column in columns], axis=1)


def _d4rl(data: Transitions) -> dict[str, NDArray[Any]]:
    return {
        "observations": data.obs,
        "actions": data.action,
        "rewards": data.reward,
        "next_observations": data.next_obs,
        "terminals": data.terminated.astype(np.float32),
    }


def _load(path: Path, name: str) -> ModuleType:
    if not path.is_file():
        raise InputError(path, "no such file", "give the path of a checkout; see the head of this script")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # its dataclasses look themselves up there
    with patch.dict(sys.modules, {unused: MagicMock() for unused in UNUSED}):
        spec.loader.exec_module(module)
    return module


def _corl(checkout: Path, device: str, source: Transitions, target: Transitions) -> Contestant:
    """Its loop without evaluation and wandb; its buffer knows one data set, so source and target are pooled."""
    corl = _load(checkout / "algorithms" / "offline" / "iql.py", "corl_iql")
    nets = corl.TwinQ(OBS, ACTION), corl.ValueFunction(OBS), corl.GaussianPolicy(OBS, ACTION, 1.0)
    q, v, actor = (net.to(device) for net in nets)
    optimisers = [torch.optim.Adam(net.parameters(), lr=3e-4) for net in (actor, q, v)]
    learner = corl.ImplicitQLearning(
        1.0, actor, optimisers[0], q, optimisers[1], v, optimisers[2], max_steps=STEPS, device=device
    )
    buffer = corl.ReplayBuffer(OBS, ACTION, len(source) + len(target), device)
    pooled = {name: np.concatenate([_d4rl(source)[name], _d4rl(target)[name]]) for name in _d4rl(target)}
    buffer.load_d4rl_dataset(pooled)

    def steps(count: int) -> None:
        for _ in range(count):
            learner.train(buffer.sample(2 * ROWS))

    return steps, 1


def _odrl(checkout: Path, device: str, name: str, source: Transitions, target: Transitions) -> Contestant:
    module = _load(checkout / "algo" / "offline_offline" / f"{name}.py", f"odrl_{name}")
    helpers = _load(checkout / "algo" / "utils.py", "odrl_utils")
    config = {
        **{"state_dim": OBS, "action_dim": ACTION, "max_action": 1.0, "hidden_sizes": HIDDEN, "max_step": STEPS},
        **{"gamma": 0.99, "tau": 0.005, "update_interval": 1, "lam": 0.7, "temp": 3.0},
        **{"actor_lr": 3e-4, "critic_lr": 3e-4, "xi": 0.25, "importance_weight": 1.0},
        **{"repr_dim": 64, "ensemble_size": 1, "repr_norm": False, "repr_norm_temp": True},
        **{"ortho_init": False, "output_gain": None},
    }
    learner = getattr(module, name.upper())(config, torch.device(device))
    buffers = [helpers.ReplayBuffer(OBS, ACTION, torch.device(device), 1) for _ in range(2)]
    for buffer, data in zip(buffers, (source, target), strict=True):
        buffer.convert_D4RL(_d4rl(data))

    def steps(count: int) -> None:
        for _ in range(count):
            learner.train(buffers[0], buffers[1], ROWS)

    return steps, 1


def _alignments(options: Options) -> dict[str, Contestant]:
    """Every alignment of ALIGNMENTS under our trainer as `landbridge train --compile` builds it; `tabb` also online."""
    found = {name: _driven([_built(options, replace(QUICK, alignment=name))]) for name in ALIGNMENTS}
    for every in (1, 4):
        online = replace(QUICK, alignment="tabb", tabb=replace(QUICK.tabb, schedule=every))
        found[f"tabb, predictor trained on every {every}"] = _driven([_built(options, online)])
    return found


def _seeds(options: Options) -> dict[str, Contestant]:
    """The default alignment with several seeds at once, as `landbridge train --compile --seeds` trains them."""
    return {f"{n}": _driven([_built(options, replace(QUICK, seed=s)) for s in range(n)]) for n in options.seeds}


def _built(options: Options, config: TrainConfig) -> Trainer:
    """A trainer of made-up rows of the robot's shapes."""
    robot = load_robot(options.robot)
    observer = load_task(robot).observer
    rng = np.random.default_rng(0)
    domains = {
        domain: _synthetic(rng, rows, observer.size, observer.num_actions)
        for domain, rows in (("source", 100_000), ("target", 3_000))
    }
    normaliser = Normaliser.of(list(domains.values()), observer.names)
    with tempfile.TemporaryDirectory() as folder:
        config = replace(config, device=options.device)
        return build(Path(folder), domains, normaliser, load_task(robot), robot, config)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
