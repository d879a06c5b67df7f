"""`landbridge calibrate excite`: a motion from which identification learns much, designed before it is recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landbridge.calibration.design import Design, middle, run_episodes
from landbridge.episode import Episode
from landbridge.errors import InputError
from landbridge.files import require_new
from landbridge.observation import Observer, action_to_command, nearest_turn
from landbridge.provenance import commit, now
from landbridge.robot import Robot, RobotSpec, load_robot
from landbridge.simulation.behaviour import Policy, load_behaviours
from landbridge.simulation.excitation import Excitation, Preview
from landbridge.simulation.parameters import free_parameters
from landbridge.simulation.scenario import NOMINAL, Scenario, load_scenario
from landbridge.spec import require_at_least, require_seed

Array = NDArray[np.float64]

FREQUENCIES = 6  # of each series, spread evenly on a logarithmic scale
SMALLER = (1.0, 0.85, 0.7)  # shares of a design that are previewed, until one keeps the limits
PREVIEWED = 3  # episodes of each scenario
BESIDE = ("random", "excite")  # the robot's own behaviours, for comparison


def excite(
    out: Path = Path("excitation.yaml"),
    robot: str = "furuta",
    known: tuple[str, ...] = (),
    reach: float = 0.7,
    band_hz: tuple[float, float] = (0.3, 3.0),
    preview: tuple[str, ...] = (NOMINAL,),
    generations: int = 20,
    seed: int = 0,
) -> dict[str, Any]:
    """Design a motion from which `calibrate identify` learns much, inside the robot's limits.

    It needs no controller of the robot's own. It is previewed in the twin, and written only if every limit is kept
    there; `landbridge record --excitation` then records it.

    Example: landbridge calibrate excite --out excitation.yaml --known link_mass_scale.arm_link --preview none severe

    Args:
        out: File to write; must not exist.
        robot: Name of a robot with a fixed base, or a folder with robot.yaml.
        known: Parameters that need not be found.
        reach: Share of the position and velocity limits that the reference may use.
        band_hz: Lowest and highest frequency.
        preview: Rungs of scenarios.yaml that the twin is previewed on.
        generations: Of the search.
        seed: Of the search and of start states.

    Returns:
        Standard deviations to expect from one episode, in those of the prior, beside the same of the robot's
        behaviours; their geometric mean over the behaviours'; and the preview.
    """
    machine = load_robot(robot)
    if machine.spec.base != "fixed":
        problem = "has a floating base, and a motion without feedback would topple it"
        raise InputError(robot, problem, "record its behaviour excite, with `landbridge record`")
    require_new(out)
    require_seed(seed)
    _require(reach, preview, generations)
    frequencies = _frequencies(machine, band_hz)
    rungs = {name: load_scenario(machine, name) for name in preview}
    design = Design(machine, free_parameters(machine, known), frequencies, reach, seed)
    series, previews = _within_limits(machine, design, design.search(generations), rungs, seed)
    designed = design.deviations(series)
    Excitation(
        robot=machine.spec.name,
        robot_hash=machine.spec.digest(),
        frequencies_hz=frequencies,
        joints=design.named(series),
        previews=previews,
        expected_sd=dict(zip((p.name for p in design.free), designed.tolist(), strict=True)),
        commit=commit(),
        created=now(),
    ).write(out)
    shown = [each.model_dump() for each in previews]
    return {"excitation": str(out), **_compared(machine, design, designed), "preview": shown}


def _compared(robot: Robot, design: Design, designed: Array) -> dict[str, Any]:
    """Standard deviations (P,) of a design beside those of the robot's own behaviours, and their mean ratios."""
    own = load_behaviours(robot)
    beside = {name: design.deviations_of(own[name]) for name in BESIDE if name in own}
    ratios = {f"over_{name}": float(np.exp(np.log(designed / sd).mean())) for name, sd in beside.items()}
    columns = {"designed": designed, **beside}
    rows = [
        {"parameter": parameter.name, **{name: float(sd[i]) for name, sd in columns.items()}}
        for i, parameter in enumerate(design.free)
    ]
    return {**ratios, "parameters": rows}


def _require(reach: float, preview: Sequence[str], generations: int) -> None:
    """Raise InputError where a design is asked for that cannot be made or previewed."""
    if not 0 < reach < 1:
        raise InputError("--reach", f"{reach:g}", "give a share above 0 and below 1")
    if not preview:
        raise InputError("--preview", "names no rung", "name one or more: what is written has been previewed")
    require_at_least("--generations", generations, 1)


def _within_limits(
    robot: Robot, design: Design, series: Array, rungs: Mapping[str, Scenario], seed: int
) -> tuple[Array, tuple[Preview, ...]]:
    """`series`, made smaller if need be, with the previews that it has passed; raises InputError if none passes."""
    for share in SMALLER:
        start = partial(design.following, share * series)
        previews = tuple(preview_on(robot, start, name, rung, seed) for name, rung in rungs.items())
        if all(preview.kept for preview in previews):
            return share * series, previews
    worst = max(previews, key=lambda preview: max(preview.position, preview.velocity, preview.tracking))
    shares = f"{worst.position:.2f} of its position and {worst.velocity:.2f} of its velocity limits"
    lag = f" and {worst.tracking:.2f} of max_tracking_error" if worst.tracking else ""
    problem = f"the twin comes to {shares}{lag}"
    raise InputError(f"preview on {worst.scenario}", problem, "lower --reach or the upper end of --band-hz")


def preview_on(robot: Robot, start: Callable[[int], Policy], name: str, scenario: Scenario, seed: int) -> Preview:
    """The shares of the limits that the twin comes to in some episodes of a policy."""
    episodes = run_episodes(robot, "bullet", scenario, start(PREVIEWED), PREVIEWED, seed)
    position, velocity = _shares(robot, episodes)
    effort = max(_largest(episode.actions) for episode in episodes)
    tracking = max(_lag(robot.spec, episode) for episode in episodes)
    return Preview(scenario=name, position=position, velocity=velocity, effort=effort, tracking=tracking)


def _lag(spec: RobotSpec, episode: Episode) -> float:
    """How far commanded positions are from those measured one period later, as a share of what is a fault."""
    if spec.safety.max_tracking_error is None:
        return 0.0
    observer = Observer(spec)
    positions, _ = observer.joint_state(episode.obs[1:])
    ahead = action_to_command(spec, episode.actions) - positions[:, spec.driven_at]
    return _largest(nearest_turn(observer, spec.actuated, ahead)) / spec.safety.max_tracking_error


def _shares(robot: Robot, episodes: Sequence[Episode]) -> tuple[float, float]:
    """The largest shares of position limits (actuated joints) and velocity limits (all joints) in some episodes.

    Infinite where the observation is clipped, since nobody knows what is beyond, and where it is not finite.
    """
    observer, position, velocity = Observer(robot.spec), 0.0, 0.0
    clip = np.array([c.clip if c.kind in ("joint_pos", "joint_vel") else np.inf for c in observer.columns], np.float32)
    for episode in episodes:
        positions, velocities = observer.joint_state(np.where(np.abs(episode.obs) >= clip, np.inf, episode.obs))
        for i, joint in enumerate(robot.spec.joints):
            centre, half = middle(joint)
            if joint.actuated and joint.position_limit is not None:
                position = max(position, _largest(positions[:, i] - centre) / half)
            velocity = max(velocity, _largest(velocities[:, i]) / joint.velocity_limit)
    return position, velocity


def _largest(values: NDArray[np.floating]) -> float:
    top = float(np.abs(values).max())
    return top if np.isfinite(top) else np.inf  # `max` does not see NaN


def _frequencies(robot: Robot, band_hz: tuple[float, float]) -> tuple[float, ...]:
    low, high = band_hz
    nyquist = robot.spec.control_rate_hz / 2
    if not 0 < low < high < nyquist:
        raise InputError("--band-hz", f"{low:g} {high:g}", f"give two rising frequencies between 0 and {nyquist:g}")
    return tuple(np.geomspace(low, high, FREQUENCIES).round(4).tolist())
