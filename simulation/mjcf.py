"""The robot under a scenario as an MJCF file, for tools that know nothing of landbridge."""

from __future__ import annotations

import mujoco

from landbridge.joint import Joint, Transmission
from landbridge.robot import Robot, RobotSpec
from landbridge.simulation.mujoco_plant import model_spec
from landbridge.simulation.scenario import Scenario
from landbridge.simulation.transmission import transmissions

HOME = "home"  # keyframe of a floating robot
WEIGHTLESS = 1e-9  # kg, kg m^2: MuJoCo takes no body of less; a rotor's weight is in the link that carries it


def to_mjcf(robot: Robot, scenario: Scenario) -> str:
    """XML that `mujoco.MjModel.from_xml_path` reads: bodies, joint friction, gears, a drive for each actuated joint.

    Controls are joint commands in SI units. A floating robot stands at the keyframe `home`: begin there
    (`mj_resetDataKeyframe`), for at zero it is in the ground. It moves as the plant does, except for what MuJoCo has no
    words for, which a comment at the top names: friction near rest is MuJoCo's own, there is no Stribeck curve, none
    that grows with the load and no cogging, a delay is a whole number of time steps, and until the first delayed
    command arrives joints are driven to 0, not to their default.

    A gear with play is a rotor, a joint of its own called `<joint>_rotor` behind those of the robot, which the drive
    acts on, and a tendon that holds the difference of both within half the gap to either side. Its ends are as hard as
    the time step permits, in place of the shaft's stiffness and damping.
    """
    spec = model_spec(robot, scenario)
    spec.option.disableflags |= mujoco.mjtDisableBit.mjDSBL_EULERDAMP  # damping explicit, as in the plant
    curved, loaded, gears = [], [], transmissions(robot.spec, scenario)
    for joint in robot.spec.joints:
        found, friction = spec.joint(joint.name), scenario.friction.get(joint.name, joint.friction)
        found.damping[0], found.frictionloss, found.armature = friction.viscous, friction.frictionloss, joint.armature
        found.limited = found.actfrclimited = mujoco.mjtLimited.mjLIMITED_FALSE  # the URDF's limits, not the robot's
        if friction.stiction is not None and friction.stiction > friction.frictionloss:
            curved.append(f"{joint.name} {friction.stiction:g} N m, {friction.stribeck_velocity:g} rad/s")
        if friction.load:
            loaded.append(f"{joint.name} {friction.load:g}")
        driven = joint.name
        if joint.name in gears:
            driven = _add_rotor(spec, found, gears[joint.name])
        if joint.actuated:
            _add_drive(spec, robot.spec, joint, driven, scenario)
    if robot.spec.base_height is not None:
        at_rest = [joint.default_joint_pos for joint in (*robot.spec.joints, *map(robot.spec.joint, gears))]
        held = [joint.default_joint_pos for joint in robot.spec.driven]
        here = [0, 0, robot.spec.base_height, 1, 0, 0, 0, *at_rest]
        spec.add_key(name=HOME, qpos=here, ctrl=held if robot.spec.action.kind == "position" else [0.0] * len(held))
    spec.compile()
    left_out = [f"Stribeck friction ({'; '.join(curved)})"] if curved else []
    if loaded:
        left_out.append(f"friction by the drive's effort ({', '.join(loaded)} of it)")
    if gears:
        left_out.append(f"compliance of the shafts of {', '.join(gears)}")
    if robot.spec.action.kind != "effort" and (loose := [name for name, gear in gears.items() if gear.backlash]):
        left_out.append(f"measurement on the joint's side of the gap in the drives of {', '.join(loose)}")
    if scenario.cogging:
        left_out.append(f"cogging of {', '.join(scenario.cogging)}")
    left_out += ["friction smoothed near rest", "sensor noise"]
    if scenario.latency_ms:
        left_out.append("a delay of anything but whole time steps")
    if scenario.latency_ms and robot.spec.action.kind == "position":
        left_out.append("a default command before the first one arrives")
    about = f"{robot.spec.name} by landbridge. Not in here: {', '.join(left_out)}."
    return f"<!-- {about} -->\n{spec.to_xml()}"


def _add_rotor(spec: mujoco.MjSpec, joint: mujoco.MjsJoint, gear: Transmission) -> str:
    """The gear of a joint; returns the name of the joint that its drive acts on, itself if there is no play."""
    if not gear.backlash:
        joint.armature = gear.rotor_inertia
        return str(joint.name)
    link, name = joint.parent, f"{joint.name}_rotor"
    body = link.parent.add_body(name=name, pos=link.pos, quat=link.quat, explicitinertial=True)
    body.mass, body.inertia, body.ipos = WEIGHTLESS, [WEIGHTLESS] * 3, [0.0] * 3
    rotor = body.add_joint(name=name, type=mujoco.mjtJoint.mjJNT_HINGE, axis=joint.axis, pos=joint.pos)
    rotor.armature = gear.rotor_inertia
    play = spec.add_tendon(name=f"{joint.name}_play", limited=mujoco.mjtLimited.mjLIMITED_TRUE)
    play.range, play.solref_limit = [-gear.backlash / 2, gear.backlash / 2], [2 * spec.option.timestep, 1]
    play.wrap_joint(name, 1)
    play.wrap_joint(joint.name, -1)
    return name


def _add_drive(spec: mujoco.MjSpec, robot: RobotSpec, joint: Joint, driven: str, scenario: Scenario) -> None:
    """The law of `landbridge.simulation.drive`: gain times direct effort or PD, cut to the effort limit."""
    gain, kind = scenario.actuator_gain, robot.action.kind
    stiffness, damping = gain * joint.stiffness, gain * joint.damping
    drive = spec.add_actuator(name=joint.name, target=driven, trntype=mujoco.mjtTrn.mjTRN_JOINT)
    drive.forcelimited, drive.forcerange = mujoco.mjtLimited.mjLIMITED_TRUE, [-joint.effort_limit, joint.effort_limit]
    drive.gainprm[0] = {"effort": gain, "velocity": damping, "position": stiffness}[kind]
    if kind != "effort":
        drive.biastype = mujoco.mjtBias.mjBIAS_AFFINE
        drive.biasprm[:3] = [0.0, -stiffness if kind == "position" else 0.0, -damping]
    if steps := round(scenario.latency_ms / 1000 / spec.option.timestep):
        drive.delay, drive.nsample = steps * spec.option.timestep, steps + 1
