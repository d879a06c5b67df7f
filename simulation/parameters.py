"""The physical parameters of a robot as a vector: what identification estimates and randomisation draws.

A parameter is one number of a `Scenario`, named by its place there. Its coordinate z counts prior standard deviations
from nominal: factors in the logarithm, torques and times themselves, since they may be zero.

What walks is less told of than what hangs or stands: the links of a floating base are as the URDF says, its trunk
carries a payload, and joints that are alike share their friction, without a Stribeck curve and the same under any load.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landbridge.errors import InputError
from landbridge.joint import Friction
from landbridge.robot import Robot
from landbridge.simulation.scenario import Payload, Scenario
from landbridge.simulation.transmission import transmissions

Array = NDArray[np.float64]

FACTOR_SD = 0.3  # of a logarithm: gains, masses and lengths are known to within a factor of 1.8 (2 sigma) beforehand
FACTOR_BOUND = 4.0  # times nominal, or nominal divided by it
DRY_SD = 10.0  # rad/s^2: what dry friction decelerates the joint's own link by, 1 sigma
VISCOUS_SD = 3.0  # 1/s, likewise per rad/s
DRIVEN_SD = (
    0.05,
    0.1,
)  # or, if more: of the drive's largest effort, of its damping; gears rub more than their load weighs
BACKLASH_BOUND = 3.0  # sigma
TORQUE_BOUND = 3.0  # sigma; the explicit integration of stiff friction bears as much
STRIBECK_SD = 0.5  # of a logarithm
LOAD_SD, LOAD_BOUND = 0.2, 0.5  # of the drive's effort: spur gears of servos lose 0.1 to 0.4 of it (arXiv:2410.08650)
BACKLASH_SD = 0.01  # rad, or the nominal gap if that is more: a gear's datasheet says 0.25 to 0.5 degrees, wear adds
PAYLOAD_SD, PAYLOAD_SD_M = 0.2, 0.1  # of the robot's mass; m from the root link's frame
PAYLOAD_BOUND = 3.0  # sigma
LATENCY_SD_MS = 50.0
MAX_LATENCY_MS = 100.0

FRICTION = ("frictionloss", "excess", "stribeck_velocity", "viscous", "load")
# What friction may have besides Coulomb and viscous, by fields of FRICTION; where the first is 0 there is no such term.
TERMS = {"stribeck": ("excess", "stribeck_velocity"), "load": ("load",)}
PAYLOAD = ("mass", "x", "y", "z")


@dataclass(frozen=True)
class Parameter:
    """One parameter.

    Attributes:
        name: Its place in the scenario, `friction.arm.viscous`; `friction.<joint>.excess` is stiction - frictionloss.
        unit: SI, or ms; empty for a factor.
        nominal: Its value in `robot.yaml`.
        sd: Prior standard deviation of its logarithm if `log`, else of itself.
        low: Lower bound.
        high: Upper bound.
        log: Whether the coordinate is logarithmic.
        bare_sd: What `sd` would be of a joint without a drive's gears.
    """

    name: str
    unit: str
    nominal: float
    sd: float
    low: float
    high: float
    log: bool
    bare_sd: float = np.inf

    def coordinate(self, value: float) -> float:
        """The coordinate z of a value."""
        return float(np.log(value / self.nominal) if self.log else value - self.nominal) / self.sd

    def grain(self, coordinate: float) -> float:
        """What a spread is measured by where it is asked whether data tell a value, in units of z; at most 1.

        The value itself, or the prior of a joint without gears if that is wider: with gears the prior is so wide that
        a spread far inside it may say nothing of the value.
        """
        return min(1.0, max(self.bare_sd, abs(self.value(coordinate))) / self.sd)

    def value(self, coordinate: float) -> float:
        """The value at z, held within the bounds."""
        step = self.sd * coordinate
        free = self.nominal * np.exp(step) if self.log else self.nominal + step
        return float(np.clip(free, self.low, self.high))


def parameters(robot: Robot) -> list[Parameter]:
    """Every parameter: gain, masses and lengths or what a floating base meets, friction, gaps and rotors, latency."""
    links, fixed = moving_links(robot), robot.spec.base == "fixed"
    root = robot.urdf_root()
    found = [_factor("actuator_gain")]
    if fixed:
        found += [_factor(f"link_mass_scale.{link}") for link in links.values()]
        found += [_factor(f"link_length_scale.{link}") for link in links.values()]
    else:
        found += [_factor("ground_friction", Scenario().ground_friction), *_payload_parameters(root, root_link(robot))]
    for name, alike in friction_groups(robot).items():
        joint = robot.spec.joint(alike[0])
        rotor = joint.armature if joint.transmission is None else joint.transmission.rotor_inertia
        inertia, nominal = rotor + _inertia(root, links[joint.name]), joint.friction
        speed, spread = nominal.stribeck_velocity, float(np.exp(4 * STRIBECK_SD))
        dry = DRY_SD * inertia, DRIVEN_SD[0] * joint.effort_limit
        viscous = VISCOUS_SD * inertia, DRIVEN_SD[1] * joint.damping
        prefix = f"friction.{name}"
        curve = [
            _torque(f"{prefix}.excess", "N m", nominal.excess, *dry),
            Parameter(
                f"{prefix}.stribeck_velocity", "rad/s", speed, STRIBECK_SD, speed / spread, speed * spread, log=True
            ),
        ]
        found += [
            _torque(f"{prefix}.frictionloss", "N m", nominal.frictionloss, *dry),
            *(curve if fixed else ()),
            _torque(f"{prefix}.viscous", "N m s/rad", nominal.viscous, *viscous),
        ]
        if fixed and joint.actuated:
            load = nominal.load
            found.append(Parameter(f"{prefix}.load", "", load, LOAD_SD, 0.0, max(load, LOAD_BOUND), log=False))
        if joint.transmission is not None:
            found += [_gap(f"backlash.{name}", joint.transmission.backlash), _factor(f"rotor_inertia_scale.{name}")]
    return [*found, Parameter("latency_ms", "ms", 0.0, LATENCY_SD_MS, 0.0, MAX_LATENCY_MS, log=False)]


def friction_groups(robot: Robot) -> dict[str, tuple[str, ...]]:
    """The joints that share a friction, by the name it goes by.

    With a fixed base every joint has its own. With a floating one, those that `robot.yaml` tells apart by name and
    encoder only share one, under the end that their names have in common (`hip_joint`).
    """
    if robot.spec.base == "fixed":
        return {joint: (joint,) for joint in robot.spec.joint_names}
    alike = defaultdict(list)
    for joint in robot.spec.joints:
        alike[joint.model_dump_json(exclude={"name", "encoder"})].append(joint.name)
    ends = [_common_end(names) for names in alike.values()]
    unique = len(set(ends)) == len(ends) and all(ends)
    return {(end if unique else names[0]): tuple(names) for end, names in zip(ends, alike.values(), strict=True)}


def _common_end(names: Sequence[str]) -> str:
    """`hip_joint` of `FR_hip_joint` and `FL_hip_joint`, whole words only: not `t_wheel` of left and right."""
    words = takewhile(lambda each: len(set(each)) == 1, zip(*(name.split("_")[::-1] for name in names), strict=False))
    return "_".join(each[0] for each in [*words][::-1])


def free_parameters(robot: Robot, known: Sequence[str]) -> list[Parameter]:
    """All but the known ones; raises InputError if those are none of the robot's, or nothing else is left."""
    every = parameters(robot)
    if unknown := sorted(set(known) - {p.name for p in every}):
        raise InputError("--known", f"{unknown} are no parameters", f"name some of {[p.name for p in every]}")
    if not (free := [p for p in every if p.name not in known]):
        raise InputError("--known", "leaves nothing to be found", "name only what was measured otherwise")
    return free


def of_terms(terms: Collection[tuple[str, str]]) -> set[str]:
    """Names of the parameters of terms of friction, each (joint, one of TERMS)."""
    return {f"friction.{joint}.{field}" for joint, term in terms for field in TERMS[term]}


def height(joint: str, term: str) -> str:
    """Name of the parameter without which a term of a joint's friction is none."""
    return f"friction.{joint}.{TERMS[term][0]}"


def without_terms(robot: Robot, terms: Collection[tuple[str, str]]) -> Scenario:
    """The nominal robot without these terms of friction, each (joint, one of TERMS)."""
    return to_scenario(robot, {height(*term): 0.0 for term in terms})


def moving_links(robot: Robot) -> dict[str, str]:
    """The link that each joint of `robot.yaml` moves, by the joint's name."""
    children = {j.attrib["name"]: j.find("child") for j in robot.urdf_root().iter("joint")}
    return {name: child.attrib["link"] for name in robot.spec.joint_names if (child := children[name]) is not None}


def body_of(root: ET.Element, link: str) -> list[str]:
    """`link` and those that fixed joints hang on it, a tool or a camera: one body of an engine's."""
    found = [link]
    for each in found:
        found += [child for child, _ in _welded(root, each)]
    return found


def _welded(root: ET.Element, link: str) -> Iterator[tuple[str, Array]]:
    """The links that fixed joints hang on `link`, and where on it [m]."""
    for joint in root.iterfind("joint"):
        parent, child, origin = (joint.find(tag) for tag in ("parent", "child", "origin"))
        if joint.get("type") == "fixed" and parent is not None and child is not None and parent.get("link") == link:
            yield child.attrib["link"], _place(origin)


def _place(origin: ET.Element | None) -> Array:
    return np.array([float(v) for v in ("0 0 0" if origin is None else origin.get("xyz", "0 0 0")).split()])


def root_link(robot: Robot) -> str:
    """The link that no joint moves."""
    root = robot.urdf_root()
    moved = {child.attrib["link"] for child in root.iter("child")}
    return next(link.attrib["name"] for link in root.iter("link") if link.attrib["name"] not in moved)


def to_scenario(robot: Robot, values: Mapping[str, float], base: Scenario | None = None) -> Scenario:
    """`base` (nominal by default) with the parameters in `values` set; the others stay."""
    start = Scenario() if base is None else base
    every = to_values(robot, start) | dict(values)
    root = robot.urdf_root()
    bodies = {link: body_of(root, link) for link in moving_links(robot).values()}
    scales = {
        field: getattr(start, field)
        | {
            part: every[f"{field}.{link}"]
            for link, body in bodies.items()
            if f"{field}.{link}" in values
            for part in body
        }
        for field in ("link_mass_scale", "link_length_scale")
    }
    friction: dict[str, Friction] = {}
    gears = dict(start.transmission)
    for name, alike in friction_groups(robot).items():
        loss, excess, speed, viscous, load = (every.get(f"friction.{name}.{field}", 0.0) for field in FRICTION)
        stiction = loss + excess if excess > 0 else None
        law = Friction(frictionloss=loss, stiction=stiction, stribeck_velocity=speed, viscous=viscous, load=load)
        friction |= dict.fromkeys(alike, law)
        if (built_in := robot.spec.joint(alike[0]).transmission) is not None:
            gear = transmissions(robot.spec, start)[alike[0]]
            inertia = built_in.rotor_inertia * every[f"rotor_inertia_scale.{name}"]
            changed_gear = {"backlash": every[f"backlash.{name}"], "rotor_inertia": inertia}
            gears |= dict.fromkeys(alike, gear.model_copy(update=changed_gear))
    changed: dict[str, Any] = {name: every[name] for name in ("actuator_gain", "latency_ms")}
    if robot.spec.base == "floating":
        changed |= {"ground_friction": every["ground_friction"], "payload": _loaded(robot, every, start)}
    return start.model_copy(update=changed | scales | {"friction": friction, "transmission": gears})


def _loaded(robot: Robot, values: Mapping[str, float], base: Scenario) -> dict[str, Payload]:
    """What the links carry: the root link as in `values`, the others as in `base`."""
    link = root_link(robot)
    mass, x, y, z = (values[f"payload.{link}.{field}"] for field in PAYLOAD)
    others = {name: payload for name, payload in base.payload.items() if name != link}
    return others | ({link: Payload(mass=mass, position=(x, y, z))} if mass > 0 else {})


def to_values(robot: Robot, scenario: Scenario) -> dict[str, float]:
    """The parameters of `scenario` by name: the inverse of `to_scenario`; of joints alike the first one speaks."""
    values = {"actuator_gain": scenario.actuator_gain, "latency_ms": scenario.latency_ms}
    if robot.spec.base == "floating":
        link = root_link(robot)
        payload = scenario.payload.get(link)
        carried = (0.0, 0.0, 0.0, 0.0) if payload is None else (payload.mass, *payload.position)
        values["ground_friction"] = scenario.ground_friction
        values |= {f"payload.{link}.{field}": v for field, v in zip(PAYLOAD, carried, strict=True)}
    for link in moving_links(robot).values():
        values[f"link_mass_scale.{link}"] = scenario.link_mass_scale.get(link, 1.0)
        values[f"link_length_scale.{link}"] = scenario.link_length_scale.get(link, 1.0)
    gears = transmissions(robot.spec, scenario)
    for name, alike in friction_groups(robot).items():
        if (built_in := robot.spec.joint(alike[0]).transmission) is not None:
            values[f"backlash.{name}"] = gears[alike[0]].backlash
            values[f"rotor_inertia_scale.{name}"] = gears[alike[0]].rotor_inertia / built_in.rotor_inertia
        friction = scenario.friction.get(alike[0], robot.spec.joint(alike[0]).friction)
        values |= {f"friction.{name}.{field}": getattr(friction, field) for field in FRICTION}
        if not robot.spec.joint(alike[0]).actuated:  # no drive loads it
            del values[f"friction.{name}.load"]
    return values


def at(chosen: Sequence[Parameter], coordinates: Array) -> dict[str, float]:
    """The values at coordinates z (P,), by name."""
    return {p.name: p.value(float(z)) for p, z in zip(chosen, coordinates, strict=True)}


def _factor(name: str, nominal: float = 1.0) -> Parameter:
    return Parameter(name, "", nominal, FACTOR_SD, nominal / FACTOR_BOUND, nominal * FACTOR_BOUND, log=True)


def _gap(name: str, nominal: float) -> Parameter:
    sd = max(nominal, BACKLASH_SD)
    return Parameter(name, "rad", nominal, sd, 0.0, nominal + BACKLASH_BOUND * sd, log=False)


def _payload_parameters(root: ET.Element, link: str) -> list[Parameter]:
    sd = PAYLOAD_SD * sum(float(mass.attrib["value"]) for mass in root.iter("mass"))
    reach = PAYLOAD_BOUND * PAYLOAD_SD_M
    mass, *place = (f"payload.{link}.{field}" for field in PAYLOAD)
    return [
        Parameter(mass, "kg", 0.0, sd, 0.0, PAYLOAD_BOUND * sd, log=False),
        *(Parameter(axis, "m", 0.0, PAYLOAD_SD_M, -reach, reach, log=False) for axis in place),
    ]


def _torque(name: str, unit: str, nominal: float, bare_sd: float, driven_sd: float) -> Parameter:
    sd = max(bare_sd, driven_sd)
    return Parameter(name, unit, nominal, sd, 0.0, nominal + TORQUE_BOUND * sd, log=False, bare_sd=bare_sd)


def _inertia(root: ET.Element, link: str, at: Array | None = None) -> float:
    """Order of magnitude of the inertia [kg m^2] of a link's body about the joint that moves it; `at` is its place."""
    at = np.zeros(3) if at is None else at
    total = sum(_inertia(root, child, at + place) for child, place in _welded(root, link))
    inertial = next(e for e in root.iter("link") if e.attrib["name"] == link).find("inertial")
    if inertial is None:  # a mere frame
        return total
    origin, mass, inertia = (inertial.find(tag) for tag in ("origin", "mass", "inertia"))
    assert mass is not None and inertia is not None
    own = max(float(inertia.attrib[key]) for key in ("ixx", "iyy", "izz"))
    return total + own + float(mass.attrib["value"]) * float(np.square(at + _place(origin)).sum())
