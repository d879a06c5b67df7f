"""The robot under a scenario as an MJCF file, for tools that know nothing of landbridge."""

from __future__ import annotations

import math

import mujoco

from landbridge.joint import Joint
from landbridge.robot import Robot, RobotSpec
from landbridge.simulation.mujoco_plant import model_spec
from landbridge.simulation.scenario import Scenario


def to_mjcf(robot: Robot, scenario: Scenario) -> str:
    """XML that `mujoco.MjModel.from_xml_path` reads: bodies, joint friction, and a drive for each actuated joint.

    Controls are joint commands in SI units. It moves as the plant does, except for what MuJoCo has no words for, which
    a comment at the top names: friction near rest is MuJoCo's own, there is no Stribeck curve, and until the first
    delayed command arrives joints are driven to 0, not to their default.
    """
    spec = model_spec(robot, scenario)
    spec.option.disableflags |= mujoco.mjtDisableBit.mjDSBL_EULERDAMP  # damping explicit, as in the plant
    curved = []
    for joint in robot.spec.joints:
        found, friction = spec.joint(joint.name), scenario.friction.get(joint.name, joint.friction)
        found.damping[0], found.frictionloss, found.armature = friction.viscous, friction.frictionloss, joint.armature
        found.limited = mujoco.mjtLimited.mjLIMITED_FALSE
        if friction.stiction is not None and friction.stiction > friction.frictionloss:
            curved.append(f"{joint.name} {friction.stiction:g} N m, {friction.stribeck_velocity:g} rad/s")
        if joint.actuated:
            _add_drive(spec, robot.spec, joint, scenario)
    spec.compile()
    left_out = [f"Stribeck friction ({'; '.join(curved)})"] if curved else []
    left_out += ["friction smoothed near rest", "sensor noise"]
    if scenario.latency_ms and robot.spec.action.kind == "position":
        left_out.append("a default command before the first one arrives")
    about = f"{robot.spec.name} by landbridge. Not in here: {', '.join(left_out)}."
    return f"<!-- {about} -->\n{spec.to_xml()}"


def _add_drive(spec: mujoco.MjSpec, robot: RobotSpec, joint: Joint, scenario: Scenario) -> None:
    """The law of `landbridge.simulation.drive`: gain times direct effort or PD, cut to the effort limit."""
    gain, kind = scenario.actuator_gain, robot.action.kind
    stiffness, damping = gain * joint.stiffness, gain * joint.damping
    drive = spec.add_actuator(name=joint.name, target=joint.name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
    drive.forcelimited, drive.forcerange = mujoco.mjtLimited.mjLIMITED_TRUE, [-joint.effort_limit, joint.effort_limit]
    drive.gainprm[0] = {"effort": gain, "velocity": damping, "position": stiffness}[kind]
    if kind != "effort":
        drive.biastype = mujoco.mjtBias.mjBIAS_AFFINE
        drive.biasprm[:3] = [0.0, -stiffness if kind == "position" else 0.0, -damping]
    if scenario.latency_ms:
        steps = math.ceil(scenario.latency_ms / 1000 / spec.option.timestep - 1e-9)
        drive.delay, drive.nsample = steps * spec.option.timestep, steps + 1
