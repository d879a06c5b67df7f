"""`landbridge engine build`: a TensorRT engine of a bundle, accepted only if it drives the robot as well as the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from landbridge.bundle import Bundle, read_bundle
from landbridge.deploy.engine import NATIVE, Precision, accept, require_offered, write_candidate
from landbridge.deploy.native import build
from landbridge.deploy.precision import lowered
from landbridge.deploy.runtime import golden_tolerance, key_of, load_policy
from landbridge.episode import Episode
from landbridge.errors import InputError
from landbridge.robot import Robot, load_robot
from landbridge.simulation.plant import make_plant
from landbridge.simulation.rollout import lockstep
from landbridge.simulation.scenario import Scenario, load_scenario
from landbridge.spec import require_at_least
from landbridge.task import load_task

SEED = 30_000
MIN_RETURN = 0.95  # of the CPU's, on the same episodes
LOST_EPISODES = 1  # that the CPU wins and the engine may lose: a rollout at the edge may fall to either side

Infer = Callable[[NDArray[np.float32]], NDArray[np.float32]]
Start = Callable[[], Infer]  # begins an episode, as `Policy.reset` does


def build_engine(
    bundle: Path,
    /,
    precision: Precision = "fp32",
    provider: Literal["tensorrt", "TensorrtExecutionProvider"] = "tensorrt",
    scenario: str = "none",
    episodes: int = 20,
) -> dict[str, Any]:
    """Build a TensorRT engine for this machine and accept it by golden vectors and a closed loop on the twin.

    The policy node then runs it with `provider:=tensorrt precision:=int8`. int8 quantises the inner layers, calibrated
    by those golden observations of the bundle that are like its training data; observations unlike these are answered
    in fp32 on the CPU, and counted.

    Example: landbridge engine build policy.bundle --precision int8

    Args:
        bundle: Folder or zip written by `landbridge export`.
        precision: What the engine computes in; int8 only with `tensorrt`.
        provider: TensorRT by its own API, or inside onnxruntime.
        scenario: Rung of the robot's scenarios.yaml for the closed loop.
        episodes: Of the closed loop, the same for engine and CPU.
    """
    require_at_least("--episodes", episodes, 1)
    read = read_bundle(bundle)
    robot = robot_of(read)
    load_scenario(robot, scenario)
    require_offered(provider, precision)
    key, reference = key_of(read, precision, provider), load_policy(read)
    try:
        if provider == NATIVE:
            write_candidate(key, build(bundle / "policy.onnx", lowered(read, precision, reference)))
        candidate = load_policy(read, (provider,), strict=True, precision=precision, accepted=False)
        scores = compare(read, robot, candidate.reset, reference.reset, scenario, episodes)
        record = accept(key, read.manifest.robot_hash, candidate.golden_error, scores)
    finally:
        key.candidate.unlink(missing_ok=True)
    return {
        "bundle": str(bundle),
        "engine": str(key.folder),
        **record.key,
        "golden_error": record.golden_error,
        "golden_tolerance": golden_tolerance(read, precision),
        **({"answered_by_cpu": candidate.outside} if precision == "int8" else {}),
        **scores,
    }


def robot_of(bundle: Bundle) -> Robot:
    """The installed robot of a bundle, which must be the one it was trained for."""
    robot = load_robot(bundle.manifest.robot)
    bundle.require_robot(robot.spec)
    return robot


def compare(
    bundle: Bundle, robot: Robot, candidate: Start, reference: Start, scenario: str, episodes: int
) -> dict[str, float]:
    """Success and return of both on the same episodes of the twin.

    Raises:
        InputError: The candidate does worse than allowed.
    """
    (won, gained), (reference_won, reference_gained) = (
        closed_loop(robot, start, scenario, episodes) for start in (candidate, reference)
    )
    scores = {
        "success": won / episodes,
        "success_cpu": reference_won / episodes,
        "return": gained,
        "return_cpu": reference_gained,
    }
    allowed = reference_gained - (1 - MIN_RETURN) * abs(reference_gained)
    if won < reference_won - LOST_EPISODES or not gained >= allowed:
        raise InputError(
            bundle.path,
            f"drives worse than the CPU on {scenario}: {scores}",
            "do not use it; build with --precision fp32, or use the CPU",
        )
    return scores


def closed_loop(robot: Robot, start: Start, scenario: str, episodes: int) -> tuple[int, float]:
    """Successful episodes and mean return of a policy on the twin, in simulated time."""
    rung, streams = load_scenario(robot, scenario), np.random.SeedSequence(SEED).spawn(episodes)
    done = [_episode(robot, start(), rung, *map(np.random.default_rng, stream.spawn(2))) for stream in streams]
    success = load_task(robot).success
    return sum(success(e.obs) for e in done), float(np.mean([e.rewards.sum() for e in done]))


def _episode(
    robot: Robot, infer: Infer, rung: Scenario, noise: np.random.Generator, start: np.random.Generator
) -> Episode:
    plant = make_plant(robot, "bullet", rung, noise)
    try:
        (episode,) = lockstep([plant], load_task(robot), lambda obs: infer(obs[0])[None], start)
    finally:
        plant.close()
    return episode
