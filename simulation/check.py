"""`landbridge robot check`: a robot folder read whole, held against its URDF, and driven in both engines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from landbridge.errors import InputError
from landbridge.joint import Friction
from landbridge.robot import HEARTBEAT_MS, PARKED, Robot, load_robot
from landbridge.simulation.behaviour import load_behaviours, require_actions, source_mix
from landbridge.simulation.plant import Engine, Plant, make_plant, opened
from landbridge.simulation.rollout import lockstep
from landbridge.simulation.scenario import NOMINAL, SCENARIOS, Scenario, load_scenarios
from landbridge.spec import require_at_least, require_seed
from landbridge.task import load_task
from landbridge.urdf import limits

Array = NDArray[np.float64]

TUNED, RECORDED = "tuned", "excite"  # what does the task, and what `landbridge record` plays
COMPARED_S = 1.0  # of an episode, in which engines are to move alike
DROP_S, DROP = 0.1, 0.02  # m that a floating base may rise or sink within as many seconds; free fall is 0.05
CLEAR = 1.0  # m that a floating base is lifted, where nothing is to touch the ground
HEARTBEATS = 3  # that a timeout must span: on a busy computer one comes late, and the next with it
BEARABLE = 2.0  # times its inertia over a physics step: a stronger damper throws a joint back faster than it came
HELD_SECONDS = 4.0  # in which a joint sags as far as it will
STILL_SECONDS = 0.5  # in which one that is told to stand still does
STARTS = 100  # states of an episode's beginning that are drawn
ALIKE = 0.05  # of a joint's inertia, in which engines may differ


def check(robot: str, /, episodes: int = 4, seed: int = 0) -> dict[str, Any]:
    """Check a robot folder: every file, its limits beside the URDF's, its behaviours, two of them in both engines.

    A wrong file ends the check with an error. What is doubtful is listed under `failed`, and the exit code is then 1.
    The robot is not pushed, since a robot that a push tips over strikes the ground differently in each engine.

    Example: landbridge robot check quadruped

    Args:
        robot: Robot folder, or name of a robot that ships.
        episodes: Of each behaviour, on each rung of scenarios.yaml and in each engine.
        seed: Of start states, noise and behaviours.

    Returns:
        Its joints with the inertia that each engine sees and the share of a joint's speed that friction takes in a
        physics step (above 2 it is unstable); the success of the behaviours, and how far any observed column is from
        that in the other engine within the first second; what is doubtful.
    """
    require_seed(seed)
    require_at_least("--episodes", episodes, 1)
    machine = load_robot(robot)
    rungs = {name: rung.model_copy(update={"push": None}) for name, rung in load_scenarios(machine).items()}
    behaviours = load_behaviours(machine)
    needed = (NOMINAL, rungs, SCENARIOS), (TUNED, behaviours, "behaviour.py"), (RECORDED, behaviours, "behaviour.py")
    for name, known, file in needed:
        if name not in known:
            raise InputError(machine.folder / file, f"has no {name!r} among {[*known]}", "add it")
    require_actions(machine, behaviours, behaviours)
    mix = source_mix(machine)
    joints = _joints(machine, rungs)
    runs = [
        _run(machine, rung, scenario, name, episodes, seed)
        for rung, scenario in rungs.items()
        for name in (TUNED, RECORDED)
    ]
    doubts = [
        *_beside_urdf(machine),
        *_unheard(machine),
        *_unlike(joints),
        *_dropped(machine, rungs[NOMINAL]),
        *_sagging(machine, rungs),
        *_restless(machine, rungs),
        *_starting_afar(machine, seed),
        *_idle(runs),
        *_not_numbers(machine, rungs[NOMINAL], mix, seed),
    ]
    return {"robot": machine.spec.name, "joints": joints, "runs": runs, "failed": doubts}


def _joints(robot: Robot, rungs: Mapping[str, Scenario]) -> list[dict[str, Any]]:
    spec, seen, lifted = robot.spec, {}, robot
    if spec.base_height is not None:  # the ground would weigh in
        lifted = Robot(spec.model_copy(update={"base_height": spec.base_height + CLEAR}), robot.folder)
    for engine in get_args(Engine):
        with closing(make_plant(lifted, engine, rungs[NOMINAL])) as plant:
            seen[engine], dt = plant.inertias(spec.joint_names), plant.physics_dt
    rows = []
    for joint in spec.joints:
        frictions = [each.friction.get(joint.name, joint.friction) for each in rungs.values()]
        damper = max(_most(f, joint.effort_limit) / spec.friction_smoothing + f.viscous for f in frictions)
        inertias = {f"{engine} [kg m^2]": inertia[joint.name] for engine, inertia in seen.items()}
        rows.append({"joint": joint.name, **inertias, "friction in a step": damper * dt / min(inertias.values())})
    return rows


def _most(friction: Friction, effort: float) -> float:
    """The largest dry friction [N m] of a joint whose drive turns it with up to `effort`."""
    return max(friction.frictionloss, friction.stiction or 0.0) + friction.load * effort


def _beside_urdf(robot: Robot) -> Iterator[str]:
    """Limits that the URDF has otherwise than robot.yaml, by which alone anything goes."""
    for name, theirs in limits(robot.urdf).items():
        joint = robot.spec.joint(name)
        lower, upper = joint.position_limit or (None, None)
        ours = {"lower": lower, "upper": upper, "velocity": joint.velocity_limit, "effort": joint.effort_limit}
        for field, value in ours.items():
            if theirs[field] != value:
                yield f"joint {name}: {field} limit is {value} in robot.yaml, {theirs[field]} in {robot.urdf.name}"


def _unheard(robot: Robot) -> Iterator[str]:
    """Times and ranges by which nothing that a policy says would reach the motors, or not as it is meant."""
    spec, task = robot.spec, load_task(robot)
    period_ms, age_ms, budget_ms = 1000 * spec.control_dt, spec.safety.max_command_age_ms, spec.latency_budget_ms
    if budget_ms > period_ms:
        yield f"latency_budget_ms is {budget_ms:g}, longer than the control period of {period_ms:g} ms"
    if age_ms < budget_ms:
        yield f"max_command_age_ms is {age_ms:g}, below latency_budget_ms, {budget_ms:g}: commands would be stale"
    if (lost_ms := spec.safety.heartbeat_timeout_ms) < HEARTBEATS * HEARTBEAT_MS:
        yield f"heartbeat_timeout_ms is {lost_ms:g}: a monitor is heard every {HEARTBEAT_MS:g} ms, at best"
    for joint in spec.driven:
        scale, kind = spec.action.scale[joint.name], spec.action.kind
        if kind != "position" and scale > (limit := joint.command_range(kind)[1]):
            yield f"joint {joint.name}: action.scale is {scale:g}, above its {kind}_limit of {limit:g}"
        assert joint.rate_limit is not None  # of what is actuated
        if (crossing := 2 * scale / joint.rate_limit) > task.episode_seconds:
            yield f"joint {joint.name}: with its rate_limit a command takes {crossing:.3g} s from action -1 to 1"


def _unlike(joints: list[dict[str, Any]]) -> Iterator[str]:
    for row in joints:
        name, mujoco, bullet, braking = row.values()
        if not abs(mujoco - bullet) < ALIKE * bullet:
            yield f"joint {name}: engines see inertias of {mujoco:.3g} and {bullet:.3g} kg m^2"
        if braking > BEARABLE:
            yield f"joint {name}: friction is unstable at this physics rate: raise decimation or friction_smoothing"


def _sagging(robot: Robot, rungs: Mapping[str, Scenario]) -> Iterator[str]:
    """Joints that the parking pose leaves under more load than their drives hold: PARK would never end."""
    spec = robot.spec
    if spec.action.kind != "position" or spec.base == "floating":
        return
    pose = np.array([spec.parking.get(joint.name, joint.default_joint_pos) for joint in spec.joints])
    held = np.array([spec.parking[name] for name in spec.actuated])
    stops = np.transpose([joint.position_range for joint in spec.joints])
    for rung, scenario in rungs.items():
        position, _ = _held(robot, scenario, pose, held, HELD_SECONDS)
        off = np.abs(np.clip(position, *stops) - pose)  # it may rest on its stops
        for joint, error in zip(spec.joints, off, strict=True):
            if joint.actuated and error > PARKED:
                yield f"joint {joint.name}: sags {error:.2f} rad off parking_pose on {rung!r}: PARK ends in a fault"


def _restless(robot: Robot, rungs: Mapping[str, Scenario]) -> Iterator[str]:
    """Joints commanded in velocity that command 0 does not bring to rest: no stop would end, nor PARK."""
    spec = robot.spec
    if spec.action.kind != "velocity" or spec.base == "floating":
        return
    pose = np.array([joint.default_joint_pos for joint in spec.joints])
    for rung, scenario in rungs.items():
        _, speeds = _held(robot, scenario, pose, np.zeros(len(spec.actuated)), STILL_SECONDS)
        for joint, speed in zip(spec.joints, speeds, strict=True):
            if joint.actuated and abs(speed) > joint.rest_speed:
                remedy = "raise its damping against a load, decimation against chatter"
                yield f"joint {joint.name}: turns at {speed:.2g} rad/s at command 0 on {rung!r}, no stop ends: {remedy}"


def _held(robot: Robot, scenario: Scenario, pose: Array, command: Array, seconds: float) -> tuple[Array, Array]:
    """Positions and velocities (J,) of a robot in Bullet that was told the same for so long, from rest in a pose."""
    with closing(make_plant(robot, "bullet", scenario)) as plant:
        plant.reset(pose, np.zeros(len(pose)))
        for _ in range(round(seconds * robot.spec.control_rate_hz)):
            plant.step([(0.0, command)])
        position, velocity = plant.state()
    return np.array(position), np.array(velocity)


def _starting_afar(robot: Robot, seed: int) -> Iterator[str]:
    """Joints whose episodes start farther from where ARMED leads them than the guard bears."""
    spec, limit = robot.spec, robot.spec.safety.max_tracking_error
    if spec.action.kind != "position" or limit is None:
        return
    start, _ = load_task(robot).initial_state(np.random.default_rng(seed), STARTS)
    for i, joint in enumerate(spec.joints):
        far = float(np.abs(start[:, i] - joint.default_joint_pos).max())
        if joint.actuated and far > limit:
            what = f"episodes start up to {far:.2f} rad from default_joint_pos, to which ARMED leads"
            yield f"joint {joint.name}: {what}; with a max_tracking_error of {limit:g} that is a fault"


def _dropped(robot: Robot, scenario: Scenario) -> Iterator[str]:
    """Whether a floating base stands where an episode begins."""
    if robot.spec.base == "fixed":
        return
    rest = np.array([joint.default_joint_pos for joint in robot.spec.joints])
    for engine in get_args(Engine):
        with closing(make_plant(robot, engine, scenario)) as plant:
            plant.reset(rest, np.zeros_like(rest))
            rise = 0.0
            for _ in range(max(1, round(DROP_S * robot.spec.control_rate_hz))):
                plant.step([])
                rise += float(_upwards(plant)) * robot.spec.control_dt
        if abs(rise) > DROP:
            yield f"base rises by {rise:.3f} m in its first {DROP_S} s in {engine}: correct base_height or <collision>"


def _upwards(plant: Plant) -> float:
    base = plant.measure_base()
    assert base is not None
    return -float((base.lin_vel * base.projected_gravity()).sum())


def _run(robot: Robot, rung: str, scenario: Scenario, name: str, episodes: int, seed: int) -> dict[str, Any]:
    """Success of a behaviour in each engine, and the largest difference of any observed column between them."""
    task, success, seen = load_task(robot), dict[str, float](), []
    for engine in get_args(Engine):
        rngs = [np.random.default_rng([seed, i]) for i in range(episodes)]  # the same noise in each engine
        with opened(robot, engine, [scenario] * episodes, rngs) as plants:
            rng = np.random.default_rng(seed)
            made = lockstep(plants, task, load_behaviours(robot)[name](episodes, rng), rng)
        success[engine] = float(np.mean([task.success(episode.obs) for episode in made]))
        seen.append([episode.obs[: round(COMPARED_S * robot.spec.control_rate_hz)] for episode in made])
    apart = max(float(np.abs(a[: len(b)] - b[: len(a)]).max()) for a, b in zip(*seen, strict=True))
    return {"rung": rung, "behaviour": name, **success, "apart": apart}


def _not_numbers(robot: Robot, scenario: Scenario, mix: Iterable[str], seed: int) -> Iterator[str]:
    """What `train` would refuse of a source dataset, from an episode of each behaviour that starts anywhere."""
    task, behaviours, rng = load_task(robot), load_behaviours(robot), np.random.default_rng(seed)
    with closing(make_plant(robot, "mujoco", scenario, rng)) as plant:
        for name in mix:
            (episode,) = lockstep([plant], task, behaviours[name](1, rng), rng, exploring=True)
            for what, values in {"observation": episode.obs, "reward": episode.rewards}.items():
                if not np.isfinite(values).all():
                    yield f"behaviour {name!r}, from anywhere in mujoco: {what}s that are not finite"


def _idle(runs: list[dict[str, Any]]) -> Iterator[str]:
    for row in runs:
        for engine in get_args(Engine):
            if row["rung"] == NOMINAL and row["behaviour"] == TUNED and not row[engine]:
                yield f"behaviour {TUNED!r} never does the task on rung {NOMINAL!r} in {engine}"
