"""The physical parameters of a robot as a vector: what identification estimates and randomisation draws.

A parameter is one number of a `Scenario`, named by its place there. Its coordinate z counts prior standard deviations
from nominal: factors in the logarithm, torques and times themselves, since they may be zero.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from landbridge.errors import InputError
from landbridge.joint import Friction
from landbridge.robot import Robot
from landbridge.simulation.scenario import Scenario

Array = NDArray[np.float64]

FACTOR_SD = 0.3  # of a logarithm: gains, masses and lengths are known to within a factor of 1.8 (2 sigma) beforehand
FACTOR_BOUND = 4.0  # times nominal, or nominal divided by it
DRY_SD = 10.0  # rad/s^2: what dry friction decelerates the joint's own link by, 1 sigma
VISCOUS_SD = 3.0  # 1/s, likewise per rad/s
DRIVEN_SD = (
    0.05,
    0.1,
)  # or, if more: of the drive's largest effort, of its damping; gears rub more than their load weighs
TORQUE_BOUND = 3.0  # sigma; the explicit integration of stiff friction bears as much
STRIBECK_SD = 0.5  # of a logarithm
LATENCY_SD_MS = 50.0
MAX_LATENCY_MS = 100.0

FRICTION = ("frictionloss", "excess", "stribeck_velocity", "viscous")
STRIBECK = ("excess", "stribeck_velocity")  # what distinguishes a Stribeck curve from Coulomb and viscous friction


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
    """Every parameter of a robot with a fixed base: gain, mass and length of the links that move, friction, latency."""
    links = moving_links(robot)
    found = [_factor("actuator_gain")]
    found += [_factor(f"link_mass_scale.{link}") for link in links.values()]
    found += [_factor(f"link_length_scale.{link}") for link in links.values()]
    root = ET.parse(robot.urdf).getroot()
    for joint in robot.spec.joints:
        inertia, nominal = _inertia(root, links[joint.name]), joint.friction
        excess = (nominal.stiction or nominal.frictionloss) - nominal.frictionloss
        speed, spread = nominal.stribeck_velocity, float(np.exp(4 * STRIBECK_SD))
        dry = DRY_SD * inertia, DRIVEN_SD[0] * joint.effort_limit
        viscous = VISCOUS_SD * inertia, DRIVEN_SD[1] * joint.damping
        prefix = f"friction.{joint.name}"
        found += [
            _torque(f"{prefix}.frictionloss", "N m", nominal.frictionloss, *dry),
            _torque(f"{prefix}.excess", "N m", excess, *dry),
            Parameter(
                f"{prefix}.stribeck_velocity", "rad/s", speed, STRIBECK_SD, speed / spread, speed * spread, log=True
            ),
            _torque(f"{prefix}.viscous", "N m s/rad", nominal.viscous, *viscous),
        ]
    return [*found, Parameter("latency_ms", "ms", 0.0, LATENCY_SD_MS, 0.0, MAX_LATENCY_MS, log=False)]


def free_parameters(robot: Robot, known: Sequence[str]) -> list[Parameter]:
    """All but the known ones; raises InputError if those are none."""
    every = parameters(robot)
    if unknown := sorted(set(known) - {p.name for p in every}):
        raise InputError("--known", f"{unknown} are no parameters", f"name some of {[p.name for p in every]}")
    return [p for p in every if p.name not in known]


def without_stribeck(robot: Robot, joints: Sequence[str]) -> Scenario:
    """The nominal robot, these joints without a Stribeck curve."""
    plain = {name: robot.spec.joint(name).friction.model_copy(update={"stiction": None}) for name in joints}
    return Scenario(friction=plain)


def moving_links(robot: Robot) -> dict[str, str]:
    """The link that each joint of `robot.yaml` moves, by the joint's name."""
    children = {j.attrib["name"]: j.find("child") for j in ET.parse(robot.urdf).getroot().iter("joint")}
    return {name: child.attrib["link"] for name in robot.spec.joint_names if (child := children[name]) is not None}


def to_scenario(robot: Robot, values: Mapping[str, float], base: Scenario | None = None) -> Scenario:
    """`base` (nominal by default) with the parameters in `values` set; the others stay."""
    start = Scenario() if base is None else base
    every = to_values(robot, start) | dict(values)
    scales = {
        field: getattr(start, field)
        | {link: every[f"{field}.{link}"] for link in moving_links(robot).values() if f"{field}.{link}" in values}
        for field in ("link_mass_scale", "link_length_scale")
    }
    friction = {}
    for joint in robot.spec.joint_names:
        loss, excess, speed, viscous = (every[f"friction.{joint}.{field}"] for field in FRICTION)
        stiction = loss + excess if excess > 0 else None
        friction[joint] = Friction(frictionloss=loss, stiction=stiction, stribeck_velocity=speed, viscous=viscous)
    changed = {"actuator_gain": every["actuator_gain"], "latency_ms": every["latency_ms"], "friction": friction}
    return start.model_copy(update=changed | scales)


def to_values(robot: Robot, scenario: Scenario) -> dict[str, float]:
    """The parameters of `scenario` by name: the inverse of `to_scenario`."""
    values = {"actuator_gain": scenario.actuator_gain, "latency_ms": scenario.latency_ms}
    for link in moving_links(robot).values():
        values[f"link_mass_scale.{link}"] = scenario.link_mass_scale.get(link, 1.0)
        values[f"link_length_scale.{link}"] = scenario.link_length_scale.get(link, 1.0)
    for joint in robot.spec.joints:
        friction = scenario.friction.get(joint.name, joint.friction)
        excess = 0.0 if friction.stiction is None else friction.stiction - friction.frictionloss
        of_joint = friction.frictionloss, excess, friction.stribeck_velocity, friction.viscous
        values |= {f"friction.{joint.name}.{field}": v for field, v in zip(FRICTION, of_joint, strict=True)}
    return values


def at(chosen: Sequence[Parameter], coordinates: Array) -> dict[str, float]:
    """The values at coordinates z (P,), by name."""
    return {p.name: p.value(float(z)) for p, z in zip(chosen, coordinates, strict=True)}


def _factor(name: str) -> Parameter:
    return Parameter(name, "", 1.0, FACTOR_SD, 1 / FACTOR_BOUND, FACTOR_BOUND, log=True)


def _torque(name: str, unit: str, nominal: float, bare_sd: float, driven_sd: float) -> Parameter:
    sd = max(bare_sd, driven_sd)
    return Parameter(name, unit, nominal, sd, 0.0, nominal + TORQUE_BOUND * sd, log=False, bare_sd=bare_sd)


def _inertia(root: ET.Element, link: str) -> float:
    """Order of magnitude of a link's inertia [kg m^2] about the joint that moves it."""
    inertial = next(e for e in root.iter("link") if e.attrib["name"] == link).find("inertial")
    assert inertial is not None
    origin, mass, inertia = (inertial.find(tag) for tag in ("origin", "mass", "inertia"))
    assert mass is not None and inertia is not None
    centre = [] if origin is None else [float(v) for v in origin.get("xyz", "0 0 0").split()]
    own = max(float(inertia.attrib[key]) for key in ("ixx", "iyy", "izz"))
    return own + float(mass.attrib["value"]) * float(np.square(centre).sum())
