"""What the policy and the exciting behaviour have in common: a measurement in, an observation, a command out."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from landbridge.deploy.supervisor import State
from landbridge.observation import Observer, action_affine, action_to_command, push_action
from landbridge.robot import load_robot
from landbridge.simulation.compensation import Compensation
from landbridge_nodes import topics
from landbridge_nodes.base import read_base
from landbridge_nodes.parameters import Parameter, declare
from landbridge_nodes.process import LOOP_SECONDS, spin_while

LEAVE_SECONDS = 3 * LOOP_SECONDS  # by then every process has noticed a signal that came to all
PENDING = 4  # measurements that may be incomplete at a time: their parts come on topics that do not wait for each other


class Controller(LifecycleNode):  # type: ignore[misc]
    """A lifecycle node that answers every measurement while active.

    The observation's history of actions holds what was asked for since the supervisor became ACTIVE, what was asked
    before never reached the motors, and its gait clock counts the measurements answered since then. A controller that
    cannot answer falls silent until it is activated again; the bridge stops the robot meanwhile.

    Args:
        parameters: Of the node; the robot is one of them.

    Attributes:
        told: Their values, by name.
        fault: Why it fell silent; "" while it answers.
        compensation: By what commands are changed before they are sent, the actions left as they are; None by nothing.
    """

    def __init__(self, name: str, parameters: Sequence[Parameter]) -> None:
        super().__init__(name)
        self.told = declare(self, parameters)
        self.robot = load_robot(self.told["robot"])
        self.spec = self.robot.spec
        self.observer = Observer(self.spec)
        self._history = self.observer.initial_history(1)
        self.fault = ""
        self.compensation: Compensation | None = None
        self._active = False  # this node's lifecycle
        self._moving = False  # the supervisor is ACTIVE
        self._affine = action_affine(self.spec)
        kind, actuated = self.spec.action.kind, self.spec.actuated
        self._message = topics.joint_message(0, actuated, kind, [0.0] * len(actuated))
        self._acted = topics.array_message(0, (*actuated, *topics.INFERENCE, topics.TICK), [])
        self._seen = topics.array_message(0, self.observer.names, [])
        lease = self.spec.safety.heartbeat_timeout_ms / 1000
        self._command = self.create_publisher(topics.COMMAND.message, topics.COMMAND.name, topics.command_qos(lease))
        self._action = topics.publish(self, topics.ACTION)
        self._observation = topics.publish(self, topics.OBSERVATION)
        self._names: list[str] = []  # of the joints in the last measurement, and where the robot's own are among them
        self._order: slice | NDArray[np.intp] = slice(None)  # which spares the two indexings of most robots
        self._ticks = 0  # measurements answered since the supervisor became ACTIVE
        self._arriving: dict[int, dict[topics.Topic, Any]] = {}  # parts of the newest measurements, by stamp
        self._parts = topics.measured(self.spec)
        for part in self._parts:
            topics.subscribe(self, part, partial(self._on_part, part))
        topics.subscribe(self, topics.SAFETY_STATE, self._on_state)

    @abstractmethod
    def act(self, obs: NDArray[np.float32]) -> NDArray[np.floating]:
        """The action (m,) for one observation (n,)."""

    def acted(self, obs: NDArray[np.float32], action: NDArray[np.float64], command: NDArray[np.float64]) -> None:
        """Called after the command (m,) that answers obs (n,) has been sent, while the supervisor is ACTIVE."""

    def begin(self) -> None:
        """A new stretch of ACTIVE begins."""

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Answer measurements from now on."""
        self._history, self._ticks = self.observer.initial_history(1), 0
        self.fault, self._active = "", True
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Fall silent."""
        self._active = False
        return super().on_deactivate(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Fall silent for good."""
        self._active = False
        return super().on_shutdown(state)

    def close(self) -> None:
        """Answer on for a moment, while the robot moves.

        Who ends every process at once ends this one too. Bridge and monitor park the robot once they hear of it; one
        that loses its controller before that would stop it, and leave it powered.
        """
        spin_while(self, lambda: self._active and self._moving, LEAVE_SECONDS)

    def _on_state(self, message: Any) -> None:
        moving = message.name == State.ACTIVE.value
        if moving and not self._moving:
            self._history, self._ticks = self.observer.initial_history(1), 0
            self.begin()
        self._moving = moving

    def _on_part(self, topic: topics.Topic, message: Any) -> None:
        """A measurement is complete with its last part; one that stays incomplete is dropped and not answered."""
        if topic is topics.JOINT_STATES and message.header.frame_id != topics.MEASURED:
            self.get_logger().error(
                "joint states that are not a bridge's are ignored: end whoever publishes them", once=True
            )
            return
        stamp = topics.to_ns(message.header.stamp)
        parts = self._arriving.setdefault(stamp, {})
        parts[topic] = message
        if len(parts) == len(self._parts):
            del self._arriving[stamp]
            if self._active:
                self._try_to_answer(stamp, parts)
        elif len(self._arriving) > PENDING:
            del self._arriving[next(iter(self._arriving))]

    def _try_to_answer(self, stamp: int, parts: dict[topics.Topic, Any]) -> None:
        try:
            self._answer(stamp, parts)
        except Exception as error:  # a control loop never raises, and onnxruntime's errors share no other base
            self.fault, self._active = f"no answer: {error!r}", False
            self.get_logger().error(f"{self.fault}; silent until activated again")

    def _answer(self, stamp: int, parts: dict[topics.Topic, Any]) -> None:
        received = time.perf_counter()
        message = parts[topics.JOINT_STATES]
        base = read_base(parts[topics.IMU], parts[topics.ODOM]) if topics.IMU in parts else None
        if message.name != self._names:
            at = {name: i for i, name in enumerate(message.name)}
            order = [at[name] for name in self.spec.joint_names]
            self._names, self._order = message.name, slice(None) if order == list(range(len(at))) else np.array(order)
        joint_pos, joint_vel = np.asarray(message.position)[self._order], np.asarray(message.velocity)[self._order]
        obs = self.observer(joint_pos[None], joint_vel[None], self._history, base, self._ticks)
        started = time.perf_counter()
        action = np.array(self.act(obs[0]), np.float64)
        ended = time.perf_counter()
        command = action_to_command(self.spec, action, self._affine)
        if self.compensation is not None:
            command = self.compensation(command, joint_vel)
        fields = {self.spec.action.kind: command.tolist()}
        self._command.publish(topics.joint_message_again(self._message, stamp, **fields))
        tick = self._ticks
        if self._moving:
            self._history, self._ticks = push_action(self._history, action[None]), self._ticks + 1
        timing = (started - received) * 1000, (ended - received) * 1000
        answer = (*action.tolist(), *timing, tick)
        self._action.publish(topics.array_message_again(self._acted, stamp, answer))
        self._observation.publish(topics.array_message_again(self._seen, stamp, obs[0].tolist()))
        if self._moving:
            self.acted(obs[0], action, command)
