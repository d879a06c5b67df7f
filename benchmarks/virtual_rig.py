"""Guard and supervisor in virtual time: what the nodes around them do, on a clock of 10 ms steps.

PX4 tests its failsafes this way. A joint model per robot, a policy that answers each measurement one step later, the
supervisor's heartbeat every fourth step, and every message one step under way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import mujoco
import numpy as np

from landbridge.deploy.guard import Guard
from landbridge.deploy.supervisor import COMMANDED, Event, State, Supervisor
from landbridge.robot import load_robot
from landbridge.simulation.mujoco_plant import compile_model
from landbridge.simulation.scenario import Scenario
from landbridge.verdict import ADMISSIBLE, Verdict

STEP, FINE = 0.01, 0.002  # s, of the clock and of the joints, the lightest of which would jump in a whole STEP
TICK, BEAT = 2, 4  # steps of the control period (50 Hz) and of the heartbeat
ROBOTS = ("furuta", "quadruped", "arm")
SWAY = 12.0  # rad/s, of the healthy policy's commands
LAME = 1  # the joint that faults of a motor concern: a thigh, a shoulder lift, the furuta's free pendulum

Numbers = list[float]


class Command(NamedTuple):
    """What a policy sends, `delay` steps after the measurement came."""

    stamp: int
    names: Sequence[str]
    values: Numbers
    delay: int = 0


@cache
def inertias(robot: str) -> Numbers:
    """What each actuated joint turns in the default pose [kg m^2], the others held and what is not driven free.

    From the URDF: the diagonal of the mass matrix, a floating base and passive joints eliminated.
    """
    machine = load_robot(robot)
    model = compile_model(machine, Scenario())
    data, mass = mujoco.MjData(model), np.zeros((model.nv, model.nv))
    for joint in machine.spec.joints:
        data.qpos[model.joint(joint.name).qposadr] = joint.default_joint_pos
    mujoco.mj_forward(model, data)
    mujoco.mj_fullM(model, data, mass)
    driven = [int(model.joint(name).dofadr[0]) for name in machine.spec.actuated]
    reduced = np.linalg.inv(np.linalg.inv(mass)[np.ix_(driven, driven)])
    return [float(value) for value in reduced.diagonal()]


class Rig:
    """Guard, supervisor, robot and policy on one clock. Faults replace its public attributes.

    Attributes:
        policy: Commands that answer a measurement (stamp, positions).
        sense: What the encoders make of positions and velocities.
        stamp: What the bridge's wall clock makes of the time.
        gain: Share of the wanted torque that the motor of joint LAME gives.
        load: Torque on it from outside [N m].
        stuck: Whether it cannot move.
        tilt: Of the base [rad].
        suspended: For how long the computer has been [s]; meanwhile nothing happened.
        writes: (step, verdict, whether the policy asked for it) of everything that reached the motors.
        outside: How many of them lay outside the limits of the robot.
        torque: Whether the motors are powered.
    """

    def __init__(self, robot: str) -> None:
        self.spec = load_robot(robot).spec
        self.guard, self.supervisor = Guard(self.spec), Supervisor(self.spec)
        self.suspended = 0.0
        self.heal()
        self._inertia = inertias(robot)
        self.at = self.spec.driven_at
        self.position = [joint.default_joint_pos for joint in self.spec.joints]
        self.velocity = [0.0] * len(self.position)
        self.writes: list[tuple[int, Verdict, bool]] = []
        self.torque, self.outside = False, 0
        self.step = 100
        self._mail: list[tuple[int, Callable[[], None]]] = []
        self._seen = State.UNCONFIGURED

    @property
    def now(self) -> float:
        """Time since boot [s]."""
        return self.step * STEP + self.suspended

    def heal(self) -> None:
        """End every fault; what had died is started anew."""
        self.policy: Callable[[int, Numbers], list[Command]] = self.answer
        self.sense: Callable[[Numbers, Numbers], tuple[Numbers, Numbers]] = lambda position, velocity: (
            position,
            velocity,
        )
        self.stamp: Callable[[int], int] = lambda step: step * 10_000_000
        self.bridge_runs = self.monitor_runs = self.policy_runs = True
        self.gain, self.load, self.stuck, self.tilt = 1.0, 0.0, False, 0.0

    def answer(self, stamp: int, position: Numbers) -> list[Command]:
        """The healthy policy: sways a little about the default pose."""
        sway = 0.1 * math.sin(SWAY * self.now)
        if self.spec.action.kind == "position":
            return [Command(stamp, self.spec.actuated, [self.spec.joints[i].default_joint_pos + sway for i in self.at])]
        return [Command(stamp, self.spec.actuated, [0.3 * sway - 0.01 * position[i] for i in self.at])]

    def run(self, seconds: float) -> None:
        """Let time pass."""
        for _ in range(round(seconds / STEP)):
            self.step += 1
            due = [deliver for at, deliver in self._mail if at <= self.step]
            self._mail = [(at, deliver) for at, deliver in self._mail if at > self.step]
            for deliver in due:
                deliver()
            self._move()
            if self.bridge_runs and self.step % TICK == 0:
                self._tick()
            if self.monitor_runs and self.step % BEAT == 0:
                self.supervisor.tick(self.now)
                if self.supervisor.state is State.UNCONFIGURED:
                    self.supervisor.handle(Event.CONFIGURED, self.now)
                self.publish()

    def operate(self, event: Event, seconds: float = 0.2) -> bool:
        """One operator event and some time; returns whether it was accepted."""
        accepted = self.supervisor.handle(event, self.now).accepted
        self.publish()
        self.run(seconds)
        return accepted

    def activate(self) -> None:
        """From STANDBY to ACTIVE."""
        self._lead_back()
        assert self.operate(Event.ARM, 0.5), self.supervisor.reason
        while self.supervisor.state is State.ARMED:
            self.run(0.1)
        assert self.supervisor.state is State.ACTIVE, self.supervisor.reason

    def _lead_back(self) -> None:
        """By hand, where nothing holds a joint that has come to rest beyond its limit."""
        if self.spec.action.kind == "position":
            return
        for i, joint in enumerate(self.spec.joints):
            low, high = joint.position_range
            if not low <= self.position[i] <= high:
                self.position[i], self.velocity[i] = joint.default_joint_pos, 0.0
        self.run(0.5)

    def publish(self) -> None:
        """Send the supervisor's state to the bridge."""
        state, epoch = self.supervisor.state, self.supervisor.epoch
        self._post(lambda: self._supervise(state, epoch), 1)

    def _post(self, deliver: Callable[[], None], steps: int) -> None:
        self._mail.append((self.step + steps, deliver))

    def _supervise(self, state: State, epoch: int) -> None:
        if not self.bridge_runs:
            return
        changed = state is not self.guard.state
        self.guard.supervise(state, epoch, self.now)
        if changed:
            self._write(self.guard.tick(self.now))

    def _tick(self) -> None:
        position, velocity = self.sense(list(self.position), list(self.velocity))
        stamp = self.stamp(self.step)
        self.guard.measure(stamp, self.now, position, velocity, self.tilt)
        self._write(self.guard.tick(self.now))
        guard, state = self.guard, self.guard.state
        fault = "" if guard.fault is None else guard.fault.value
        settled = state.value if guard.settled(self.now) else ""
        self._post(lambda: self._hear(fault, guard.epoch, settled), 1)
        if self.policy_runs and self.supervisor.state in COMMANDED:
            for command in self.policy(stamp, position):
                self._post(lambda command=command: self._judge(command), 1 + command.delay)

    def _hear(self, fault: str, epoch: int, settled: str) -> None:
        """The monitor's side of the bridge's report."""
        if not self.monitor_runs:
            return
        self.supervisor.bridge_seen(self.now)
        current = epoch >= self.supervisor.epoch
        self.supervisor.adopt_epoch(epoch)
        if fault and current:
            self.supervisor.handle(Event.BRIDGE_FAULT, self.now, fault)
        self.supervisor.settled(settled, self.now)
        self._publish_change()

    def _judge(self, command: Command) -> None:
        if not self.bridge_runs:
            return
        verdict = self.guard.admit(command.stamp, command.names, command.values, self.now)
        self._write(verdict if verdict.write else None, by_policy=True)
        if self.monitor_runs:
            admissible = verdict.reason in ADMISSIBLE
            self.supervisor.command_judged(admissible, self.now)
            self._publish_change()

    def _publish_change(self) -> None:
        if self.supervisor.state is not self._seen:
            self._seen = self.supervisor.state
            self.publish()

    def _write(self, verdict: Verdict | None, by_policy: bool = False) -> None:
        if verdict is not None:
            self.torque = not verdict.release
            self.outside += not all(self._inside(*each) for each in zip(self.at, verdict.command, strict=True))
            self.writes.append((self.step, verdict, by_policy))

    def _inside(self, i: int, value: float) -> bool:
        low, high = self.spec.joints[i].command_range(self.spec.action.kind)
        return low <= value <= high

    def _move(self) -> None:
        """STEP of every actuated joint on its inertia: effort, or a position drive's PD law, and a servo's friction."""
        for k, i in enumerate(self.at):
            joint, mobility = self.spec.joints[i], FINE / self._inertia[k]
            gain, load = (self.gain, self.load) if i == LAME else (1.0, 0.0)
            command = self.writes[-1][1].command[k] if self.torque else 0.0
            served = self.torque and self.spec.action.kind == "position"
            give = gain * (joint.damping + FINE * joint.stiffness) if served else 0.0  # N m less per rad/s
            for _ in range(round(STEP / FINE)):
                effort = gain * (joint.stiffness * (command - self.position[i]) if served else command)
                speed = self._speed(i, mobility, effort + load, give)
                if abs(given := effort - give * speed) > joint.effort_limit:
                    speed = self._speed(i, mobility, math.copysign(joint.effort_limit, given) + load, 0.0)
                self.velocity[i] = 0.0 if i == LAME and self.stuck else speed
                self.position[i] += FINE * self.velocity[i]

    def _speed(self, i: int, mobility: float, effort: float, give: float) -> float:
        """Of joint i after FINE under `effort` - `give` * speed and its own Coulomb and viscous friction."""
        friction = self.spec.joints[i].friction
        driven = self.velocity[i] + mobility * effort
        slipping = max(0.0, abs(driven) - mobility * friction.frictionloss)
        return math.copysign(slipping, driven) / (1 + mobility * (friction.viscous + give))
