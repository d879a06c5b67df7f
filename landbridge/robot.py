"""What a robot is: joints by name, limits, observation and action spec, safety envelope.

A robot is a folder with `robot.yaml`, a URDF, `task.py`, `behaviour.py`, `behaviour.yaml` and `scenarios.yaml`.
Simulators, trainer, runtime, guard and nodes read the same `RobotSpec`; none of them holds a robot's number of its own.
SI units (REP 103) unless a field's suffix says otherwise.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
import sys
import traceback
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from landbridge.errors import InputError
from landbridge.hardware_spec import HardwareSpec, TwinHardware
from landbridge.joint import Joint
from landbridge.spec import EXAMPLE, Finite, Positive, Spec, read_model
from landbridge.urdf import parse_urdf, read_urdf, require_robot

ROBOTS = Path(__file__).parent / "robots"

BASE_KINDS = {"projected_gravity", "base_ang_vel", "base_lin_vel"}  # observations of a floating base


class ObservationTerm(Spec):
    """One named block of the observation vector; see `landbridge.observation` for what each kind computes.

    Attributes:
        joints: The joints it covers, in this order. `action_history` covers the actuated joints and takes none.
        scale: Multiplies the raw value.
        clip: Symmetric bound after scaling, or None.
        history: Number of past actions, newest first (`action_history` only).
        period_s: Period of the clock [s] (`gait_phase` only).
    """

    kind: Literal[
        "joint_pos",
        "joint_sin",
        "joint_cos",
        "joint_vel",
        "action_history",
        "projected_gravity",
        "base_ang_vel",
        "base_lin_vel",
        "gait_phase",
    ]
    joints: tuple[str, ...] = ()
    scale: Positive = 1.0
    clip: Positive | None = None
    history: Annotated[int, Field(ge=1)] = 1
    period_s: Positive | None = None

    @model_validator(mode="after")
    def _fields_belong_to_the_kind(self) -> Self:
        if self.kind.startswith("joint_") != bool(self.joints):
            needs = "names the joints it covers" if self.kind.startswith("joint_") else "takes no joints"
            raise ValueError(f"observation term {self.kind} {needs}: joints is {list(self.joints)}")
        if (self.kind == "gait_phase") != (self.period_s is not None):
            needs = "needs a period" if self.kind == "gait_phase" else "takes no period"
            raise ValueError(f"observation term {self.kind} {needs}: period_s is {self.period_s}")
        if self.kind != "action_history" and self.history != 1:
            raise ValueError(f"observation term {self.kind} takes no history: history is {self.history}")
        if self.kind == "gait_phase" and self.clip is not None:
            raise ValueError("observation term gait_phase takes no clip: a clipped clock cannot be advanced")
        return self


class ActionSpec(Spec):
    """How a policy output in [-1, 1] becomes a joint command.

    Attributes:
        kind: What the command is: position [rad], velocity [rad/s] or effort [N m].
        scale: Command per unit of action, for every actuated joint by name.
        relative: For positions: command = default_joint_pos + scale * action.
    """

    kind: Literal["position", "velocity", "effort"]
    scale: dict[str, Positive]
    relative: bool = False

    @model_validator(mode="after")
    def _only_positions_are_relative(self) -> Self:
        if self.relative and self.kind != "position":
            raise ValueError(f"action.relative is for positions, action.kind is {self.kind}")
        return self


PARKED = 0.2  # rad from the parking pose within which torque may go off: servos sag; what lies under a joint is more
HEARTBEAT_MS = 40.0  # from one heartbeat of the monitor to the next


class SafetyEnvelope(Spec):
    """What the guard and the monitor enforce beyond the joints' own limits.

    Attributes:
        max_command_age_ms: A command that answers an older measurement is stale.
        max_silence_periods: Control periods without an admissible command before the bridge stops on its own; at least
            2, since the newest measurement has always yet to be answered.
        heartbeat_timeout_ms: Silence of the monitor that counts as its loss.
        max_tilt: Angle of a floating base's z axis from the vertical [rad]; None: not checked.
        max_tracking_error: |commanded - measured position| [rad] of a position-commanded joint, beyond which it is a
            fault; required where joints are commanded in position, whose own loops show a jam in nothing else.
        parking_pose: Where PARK leads position-commanded joints before torque is taken off [rad], by name; those it
            does not name go to `default_joint_pos`.
        parking_speed: Largest joint speed on the way there [rad/s].
    """

    max_command_age_ms: Positive
    max_silence_periods: Annotated[int, Field(ge=2)] = 3
    heartbeat_timeout_ms: Positive = 200.0
    max_tilt: Annotated[float, Field(gt=0, lt=math.pi)] | None = None
    max_tracking_error: Positive | None = None
    parking_pose: dict[str, Finite] = Field(default={})
    parking_speed: Positive = 0.5


class RobotSpec(Spec):
    """The contract of one robot, as read from `robot.yaml`.

    Attributes:
        control_rate_hz: Policy rate; `control_dt` is its inverse.
        decimation: Physics steps per control step in simulation.
        latency_budget_ms: Measurement-to-command time the robot is designed for.
        base: Whether the root link is bolted to the world or floats above a ground plane.
        base_height: Height [m] of a floating root link's frame above the ground at the start of an episode.
        friction_smoothing: v_0 of `Friction` [rad/s]: below it Coulomb friction is a damper c / v_0, which explicit
            integration bears only if c / v_0 * physics_dt is well below twice the joint's inertia.
        hardware: What drives the joints; see `landbridge.hardware_spec`.
    """

    schema_version: Literal[1]
    name: Annotated[str, Field(pattern=r"^[\w-]+$")]  # of files, too
    urdf: str
    control_rate_hz: Positive
    decimation: Annotated[int, Field(ge=1, le=1000)]
    latency_budget_ms: Positive
    joints: tuple[Joint, ...]
    observation: tuple[ObservationTerm, ...]
    action: ActionSpec
    safety: SafetyEnvelope
    base: Literal["fixed", "floating"] = "fixed"
    base_height: Positive | None = None
    friction_smoothing: Positive = 0.1
    hardware: HardwareSpec = TwinHardware()

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        names = [j.name for j in self.joints]
        if len(set(names)) != len(names):
            raise ValueError(f"joint names are not unique: {names}")
        for term in self.observation:
            if unknown := set(term.joints) - set(names):
                raise ValueError(f"observation term {term.kind} names unknown joints {sorted(unknown)}; known: {names}")
        if set(self.action.scale) != set(self.actuated):
            raise ValueError(f"action.scale is for {sorted(self.action.scale)}, actuated joints are {self.actuated}")
        return self

    @model_validator(mode="after")
    def _bears_a_late_measurement(self) -> Self:
        if (limit := self.safety.heartbeat_timeout_ms) < 2000 * self.control_dt:
            raise ValueError(f"safety.heartbeat_timeout_ms {limit:g} is less than two control periods")
        return self

    @model_validator(mode="after")
    def _can_stop_hold_and_park(self) -> Self:
        if unknown := set(self.safety.parking_pose) - set(self.actuated):
            raise ValueError(f"safety.parking_pose names {sorted(unknown)}, actuated joints are {self.actuated}")
        if self.action.kind != "position":
            if self.safety.parking_pose:
                raise ValueError(f"safety.parking_pose needs position commands, action.kind is {self.action.kind}")
            for joint in self.driven:
                if joint.damping == 0:
                    use = "stop" if self.action.kind == "effort" else "loop"
                    problem = f"joint {joint.name} is commanded in {self.action.kind}: damping, the gain of its {use}"
                    raise ValueError(problem)
            return self
        if self.safety.max_tracking_error is None:
            problem = (
                "joints are commanded in position: safety.max_tracking_error, by which a jam or a lost motor shows"
            )
            raise ValueError(problem)
        for joint in self.driven:
            if joint.acceleration_limit is None or joint.jerk_limit is None:
                raise ValueError(f"joint {joint.name} is commanded in position: acceleration_limit and jerk_limit")
            lower, upper = joint.position_range
            if not lower <= self.parking[joint.name] <= upper:
                raise ValueError(f"joint {joint.name} parks at {self.parking[joint.name]}, outside its position_limit")
        return self

    @model_validator(mode="after")
    def _base_is_complete(self) -> Self:
        if (self.base == "floating") != (self.base_height is not None):
            needs = "needs a height" if self.base == "floating" else "takes no height"
            raise ValueError(f"a {self.base} base {needs}: base_height is {self.base_height}")
        if self.base == "fixed" and self.safety.max_tilt is not None:
            raise ValueError(f"safety.max_tilt is {self.safety.max_tilt}, and a fixed base does not tilt")
        kinds = [term.kind for term in self.observation]
        if self.base == "fixed" and (found := sorted(set(kinds) & BASE_KINDS)):
            raise ValueError(f"observation has {found}, which a fixed base does not have")
        if kinds.count("gait_phase") > 1:
            raise ValueError("observation has more than one gait_phase")
        return self

    @property
    def control_dt(self) -> float:
        """Control period [s]."""
        return 1.0 / self.control_rate_hz

    @property
    def physics_dt(self) -> float:
        """Physics step in simulation [s]."""
        return self.control_dt / self.decimation

    @property
    def joint_names(self) -> list[str]:
        """All joints, in the file's order; the order of every `joint_pos` and `joint_vel` array."""
        return [j.name for j in self.joints]

    @property
    def actuated(self) -> list[str]:
        """The actuated joints, in the file's order; the order of every action and command array."""
        return [j.name for j in self.driven]

    @property
    def driven(self) -> list[Joint]:
        """The joints that `actuated` names."""
        return [j for j in self.joints if j.actuated]

    @property
    def driven_at(self) -> list[int]:
        """Their indices among all joints."""
        return [i for i, j in enumerate(self.joints) if j.actuated]

    @property
    def parking(self) -> dict[str, float]:
        """Position [rad] of every actuated joint at the end of PARK."""
        return {j.name: j.default_joint_pos for j in self.driven} | self.safety.parking_pose

    def joint(self, name: str) -> Joint:
        """The joint called `name`; raises KeyError with the known names."""
        for joint in self.joints:
            if joint.name == name:
                return joint
        raise KeyError(f"{name!r} is not a joint of {self.name}; known: {self.joint_names}")

    def digest(self) -> str:
        """SHA-256 of the canonical JSON of this spec: equal for two files that differ only in comments or layout.

        Fields that came after the first datasets count only where they are set, so those datasets stay valid. What
        drives the joints never counts: a port is not what a policy was trained for.
        """
        later: dict[str, Any] = dict.fromkeys(_unset(self, "base", "base_height", "friction_smoothing"), True)
        later["observation"] = {i: _unset(term, "period_s") for i, term in enumerate(self.observation)}
        later["joints"] = {
            i: dict.fromkeys(_unset(joint, "acceleration_limit", "jerk_limit", "transmission"), True)
            | {"friction": _unset(joint.friction, "load")}
            for i, joint in enumerate(self.joints)
        }
        later["safety"] = _unset(self.safety, "max_tilt", "parking_pose", "parking_speed")
        later["hardware"] = True
        return hashlib.sha256(self.model_dump_json(exclude=later).encode()).hexdigest()


def _unset(spec: Spec, *fields: str) -> set[str]:
    return {name for name in fields if getattr(spec, name) == type(spec).model_fields[name].default}


class Robot:
    """A robot folder: its spec and the paths and Python modules beside it.

    Attributes:
        spec: The parsed `robot.yaml`.
        folder: Where it was read from.
    """

    def __init__(self, spec: RobotSpec, folder: Path) -> None:
        self.spec, self.folder = spec, folder

    @property
    def urdf(self) -> Path:
        """The URDF, checked to exist by `load_robot`."""
        return self.folder / self.spec.urdf

    def urdf_text(self) -> str:
        """What engines read; raises InputError if it is not XML or a mesh is missing."""
        return read_urdf(self.urdf, self.folder)

    def urdf_root(self) -> ET.Element:
        """Its root element, mere frames left out."""
        return parse_urdf(self.urdf.read_text(), self.urdf)

    def urdf_digest(self) -> str:
        """SHA-256 of the URDF, comments and layout left out."""
        return hashlib.sha256(ET.canonicalize(self.urdf.read_text(), strip_text=True).encode()).hexdigest()

    def module(self, name: str) -> ModuleType:
        """Import `<folder>/<name>.py`, once per file.

        Robots are found by path, not by package, so that a user's own robot needs no installation.

        Raises:
            InputError: The folder has no such file, or it does not run.
        """
        path = self._python(name)
        key = f"landbridge_robot_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
        if key in sys.modules:
            return sys.modules[key]
        if not path.is_file():
            raise InputError(path, "no such file", f"a robot folder needs {name}.py; see {EXAMPLE}")
        found = importlib.util.spec_from_file_location(key, path)
        assert found is not None and found.loader is not None
        module = importlib.util.module_from_spec(found)
        sys.modules[key] = module
        try:
            with self.blamed(name):
                found.loader.exec_module(module)
        except BaseException:
            del sys.modules[key]
            raise
        return module

    def defined(self, name: str, attribute: str) -> Any:
        """`attribute` of `<folder>/<name>.py`; raises InputError if it defines none."""
        module = self.module(name)
        if not hasattr(module, attribute):
            raise InputError(self._python(name), f"defines no {attribute}", f"see {EXAMPLE / name}.py for one")
        return getattr(module, attribute)

    @contextmanager
    def blamed(self, name: str) -> Iterator[None]:
        """What `<folder>/<name>.py` raises in here, as an InputError that names its line."""
        try:
            yield
        except InputError:
            raise
        except Exception as error:
            path = self._python(name)
            lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
            line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
            said = (
                error.msg if isinstance(error, SyntaxError) else error.args[0] if isinstance(error, KeyError) else error
            )
            problem = f"{type(error).__name__}: {' '.join(str(said).split())}"
            remedy = "correct it there" + (", or its parameters in behaviour.yaml" if name == "behaviour" else "")
            raise InputError(path if line is None else f"{path}:{line}", problem, remedy) from error

    def _python(self, name: str) -> Path:
        return (self.folder / f"{name}.py").resolve()


def robots() -> list[str]:
    """Names of the robots that ship with landbridge."""
    return sorted(p.parent.name for p in ROBOTS.glob("*/robot.yaml"))


def option(name: str) -> str:
    """The `--robot` option for the robot that a file names."""
    return f"--robot {name}" if name in robots() else f"--robot FOLDER, the one of {name}'s robot.yaml"


def load_robot(robot: str | Path) -> Robot:
    """Read a robot by the name of one that ships, or by the path of a robot folder.

    Raises:
        InputError: No such robot, or a file of it is malformed; of robot.yaml it names the first bad field.
    """
    folder = ROBOTS / robot if str(robot) in robots() else Path(robot)
    path = folder / "robot.yaml"
    if not path.is_file():
        raise InputError(path, "no such robot", f"name one of {robots()} or a folder that holds robot.yaml")
    spec = read_model(RobotSpec, path)
    if not (folder / spec.urdf).is_file():
        raise InputError(path, f"urdf {spec.urdf!r} does not exist", f"put it into {folder} or correct the name")
    require_robot(folder / spec.urdf, [joint.name for joint in spec.joints])
    return Robot(spec, folder)
