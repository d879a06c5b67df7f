"""One joint of a robot: limits, gains, transmission, friction and encoder, as `robot.yaml` has them."""

from __future__ import annotations

from math import inf, sin
from typing import Annotated, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from landbridge.spec import Finite, NonNegative, Positive, Spec

REST_SHARE = 0.02  # of a joint's velocity limit: slower counts as rest
REST_SPEED = 0.03  # rad/s; so does a servo that counts to and fro: a Dynamixel's speed comes in steps of 0.229 rpm


class Friction(Spec):
    """Joint friction torque: Coulomb + Stribeck + viscous (Armstrong-Hélouvry et al., Automatica 30(7), 1994, eq. 5),
    and what gears rub more under load (Duclusaud et al., arXiv:2410.08650, M3).

    tau(v, e) = -[c + l |e| + (s - c) exp(-(v / v_s)^2)] tanh(v / v_0) - b v, with v_0 a smoothing speed and e the
    effort with which the drive turns the joint. Of the two torques that load gears, the drive's and the one from
    outside, only the former is known here without the dynamics of the whole robot; while a joint turns evenly they
    differ by tau.

    Attributes:
        frictionloss: Coulomb torque c [N m].
        stiction: Break-away torque s >= c [N m]; equal to c when absent.
        stribeck_velocity: v_s [rad/s].
        viscous: b [N m s/rad].
        load: l, the share of the drive's effort that is lost in its gears.
    """

    frictionloss: NonNegative = 0.0
    stiction: NonNegative | None = None
    stribeck_velocity: Positive = 0.5
    viscous: NonNegative = 0.0
    load: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @property
    def excess(self) -> float:
        """What breaking away takes beyond Coulomb torque, s - c [N m]."""
        return 0.0 if self.stiction is None else self.stiction - self.frictionloss

    @model_validator(mode="after")
    def _break_away_is_at_least_coulomb(self) -> Self:
        if self.stiction is not None and self.stiction < self.frictionloss:
            raise ValueError(f"stiction {self.stiction} is below frictionloss {self.frictionloss}")
        return self


class Transmission(Spec):
    """Gear with play between a drive and its joint: two inertias, a shaft and a dead zone.

    The drive turns a rotor; the rotor turns the joint through a shaft that passes nothing while the gap is open (Nordin
    and Gutman, Automatica 38(10), 2002, section 2). The encoder is on the joint's side, as in bus servos.

    Attributes:
        backlash: The whole gap [rad]: how far the joint can be turned by hand while the rotor stands.
        rotor_inertia: Seen at the joint, gear ratio squared times that of the motor [kg m^2].
        stiffness: Of the shaft in contact [N m/rad].
        damping: Of the shaft in contact [N m s/rad].
    """

    backlash: NonNegative = 0.0
    rotor_inertia: Positive
    stiffness: Positive
    damping: NonNegative = 0.0


class Cogging(Spec):
    """Torque that only depends on where the joint stands: tau(q) = amplitude sin(periods q + phase).

    A motor's magnets pull it from slot to slot many times a turn; a base that is not level, or an arm out of balance,
    pulls a vertical axis once a turn; a cable that winds, less than once.

    Attributes:
        amplitude: [N m]
        periods: A turn of the joint.
        phase: [rad]
    """

    amplitude: NonNegative
    periods: Positive
    phase: Finite = 0.0

    def torque(self, position: float) -> float:
        """On the joint [N m] where it stands at `position` [rad]."""
        return self.amplitude * sin(self.periods * position + self.phase)


class Encoder(Spec):
    """joint position [rad] = sign * raw / gear - offset."""

    sign: Literal[-1, 1] = 1
    offset: Finite = 0.0
    gear: Positive = 1.0


class Joint(Spec):
    """One joint of the URDF.

    Attributes:
        actuated: Whether the policy commands it.
        position_limit: (lower, upper) [rad]; None for a continuous joint.
        velocity_limit: [rad/s]. A measured speed above it is a fault.
        effort_limit: [N m]; 0 for a passive joint.
        rate_limit: Largest change of the command per second, in the command's unit (rad/s, rad/s^2 or N m/s).
        acceleration_limit: [rad/s^2] of the trajectories that the guard makes itself (HOLD, PARK), which only a
            position-commanded robot has and needs.
        jerk_limit: [rad/s^3] of the same.
        default_joint_pos: Rest position [rad], origin of a relative position action.
        stiffness: PD gain [N m/rad] of a position-commanded joint.
        damping: PD gain [N m s/rad] of a position-commanded joint; also the gain of the DAMP stop.
        armature: Rotor inertia seen at the joint [kg m^2], where it is fixed to the joint.
        transmission: The gear between drive and joint; None: the drive acts on the joint.
    """

    name: str
    actuated: bool = True
    position_limit: tuple[Finite, Finite] | None = None
    velocity_limit: Positive
    effort_limit: NonNegative = 0.0
    rate_limit: Positive | None = None
    acceleration_limit: Positive | None = None
    jerk_limit: Positive | None = None
    default_joint_pos: Finite = 0.0
    stiffness: NonNegative = 0.0
    damping: NonNegative = 0.0
    armature: NonNegative = 0.0
    transmission: Transmission | None = None
    friction: Friction = Friction()
    encoder: Encoder = Encoder()

    @property
    def rest_speed(self) -> float:
        """Measured speed up to which the joint counts as at rest [rad/s]."""
        return max(REST_SHARE * self.velocity_limit, REST_SPEED)

    @property
    def position_range(self) -> tuple[float, float]:
        """(lower, upper) [rad]; infinite for a continuous joint."""
        return self.position_limit or (-inf, inf)

    def command_range(self, kind: str) -> tuple[float, float]:
        """(lower, upper) of a command of this kind (`ActionSpec`), in its unit."""
        if kind == "position":
            return self.position_range
        limit = self.effort_limit if kind == "effort" else self.velocity_limit
        return -limit, limit

    @model_validator(mode="after")
    def _limits_make_sense(self) -> Self:
        if self.position_limit is not None and self.position_limit[0] >= self.position_limit[1]:
            raise ValueError(f"joint {self.name}: position_limit {list(self.position_limit)} is not (lower, upper)")
        if self.actuated and (self.effort_limit == 0 or self.rate_limit is None):
            raise ValueError(f"joint {self.name} is actuated and needs effort_limit > 0 and rate_limit")
        if self.transmission is not None and not self.actuated:
            raise ValueError(f"joint {self.name} is passive and has a transmission, which belongs to a drive")
        if self.friction.load and not self.actuated:
            raise ValueError(
                f"joint {self.name} is passive and has friction.load, which is a share of a drive's effort"
            )
        if self.transmission is not None and self.armature:
            raise ValueError(f"joint {self.name} has a transmission, whose rotor_inertia stands for its armature")
        return self
