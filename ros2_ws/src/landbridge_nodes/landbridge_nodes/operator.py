"""The operator: waits for the graph, arms, watches episodes, disarms. An rclpy client; the robot does without it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from rclpy.executors import SingleThreadedExecutor
from std_srvs.srv import Trigger

from landbridge.deploy.supervisor import COMMANDED, RECOVERIES, Event, State, timeouts
from landbridge.errors import InputError
from landbridge.messages import is_labelled, named_values
from landbridge.robot import Robot
from landbridge.task import load_task
from landbridge.verdict import ADMITTED
from landbridge_nodes import topics
from landbridge_nodes.process import Client, client
from landbridge_nodes.transport import stay_on_this_machine

START_TIMEOUT = 60.0  # s for all processes to be up, on a machine that is busy with other things
ANSWER_TIMEOUT = 5.0  # s
CATCH_UP_SECONDS = 0.2  # for the bridge to measure where a robot was put, and to hear what it has said meanwhile
RETRY_SECONDS = 0.5  # for an answer: a process just killed, which is still known, would never give one
TORQUE_TIMEOUT = 2.5  # s for the bridge, which reports once a second, to say that torque is off
SERVICES = ("/monitor/arm", "/monitor/disarm", "/monitor/park", "/monitor/estop", "/monitor/reset")
PLACE = "put the robot into a start state, step back, then press Enter: it will move"


class EStopError(InputError):
    """Somebody asked for an e-stop: no tool resets it, and nothing moves any more."""


@dataclass(frozen=True)
class Outcome:
    """One stretch of ACTIVE.

    Attributes:
        ticks: Measurements that an admitted command answered.
        seconds: How long the supervisor was ACTIVE, as seen from here.
        success: The task's own verdict on the observations; an episode that was cut short has none.
        cut: What ended ACTIVE; if there was none, what kept it from beginning.
        ended: Name of the state that it all came to.
        reason: What led to that state: `cut`, or what happened on the way to STANDBY.
    """

    ticks: int
    seconds: float
    success: bool
    cut: str
    ended: str
    reason: str


class Operator(Client):
    """Drives the services of bridge and monitor; a context manager around one rclpy context of its own.

    Args:
        check: Called while waiting; raises when waiting has become useless.
        ask: Asks a person for what only a person can do, and returns when it is done; None: a simulated robot.
        placer: Node that puts a simulated robot into a start state: the bridge its twin, or an emulated board.

    Attributes:
        diagnostics: What the bridge's last report says.
        unrecorded: Why the recorder writes no more; "" while it does, or there is none.
        latency_ms: Measurement to motor write of every command.
    """

    def __init__(
        self,
        robot: Robot,
        check: Callable[[], None],
        ask: Callable[[str], None] | None = None,
        placer: Literal["bridge", "board"] = "bridge",
    ) -> None:
        super().__init__()
        self.task = load_task(robot)
        self._check = check
        self._ask = ask
        self._placement = f"/{placer}/reset_plant"
        self._seen = ask is None and placer == "bridge"  # whoever moved the robot has also measured where
        self._arm_timeout, self._recovery_timeout = timeouts(robot.spec)
        self._observations: dict[int, list[float]] = {}
        self._admitted: list[int] = []
        self.state, self.reason = State.UNCONFIGURED, ""
        self._active_at = self._active_seconds = 0.0
        self._cut = ""
        self._subscribed: dict[topics.Topic, Callable[[Any], None]] = {
            topics.SAFETY_STATE: self._on_state,
            topics.OBSERVATION: self._on_observation,
            topics.GUARD_COMMAND: self._on_verdict,
            topics.GUARD_TIMING: self._on_timing,
            topics.DIAGNOSTICS: self._on_diagnostics,
        }
        self._estopped = False  # somebody has called one in this episode, and may have reset it
        self.diagnostics: dict[str, str] = {}
        self.unrecorded = ""
        self.latency_ms: list[float] = []

    def open(self) -> None:
        """Join the graph."""
        stay_on_this_machine()
        self.node = self.enter_context(client("operator"))
        self._executor = SingleThreadedExecutor(context=self.node.context)
        self.callback(self._executor.shutdown)
        self._executor.add_node(self.node)
        for topic, callback in self._subscribed.items():
            topics.subscribe(self.node, topic, callback, depth=topics.HISTORY)
        self._clients = {name: self.node.create_client(Trigger, name) for name in (*SERVICES, self._placement)}

    def wait_ready(self, recorded: bool) -> None:
        """Wait for every service, for STANDBY or FAULT and, if `recorded`, for a recorder on every topic.

        Hardware may have had a fault while the processes started; an episode begins with the reset that leaves it.
        """
        self.wait(lambda: all(client.service_is_ready() for client in self._clients.values()), START_TIMEOUT)
        self.wait(lambda: all(self.node.count_publishers(topic.name) for topic in self._subscribed), START_TIMEOUT)
        if recorded:
            recorder = self._clients["/recorder/ready"] = self.node.create_client(Trigger, "/recorder/ready")
            self.wait(recorder.service_is_ready, START_TIMEOUT)
            self.wait(lambda: self.accepted("/recorder/ready", RETRY_SECONDS), START_TIMEOUT)
        self.wait(lambda: self.state in (State.STANDBY, State.FAULT), START_TIMEOUT)

    def require_hardware(self) -> None:
        """Raise InputError if the bridge could not open any: nobody need be asked to stand at it."""
        if self.state is not State.FAULT:
            return
        self.refresh_diagnostics()
        if self.diagnostics.get("torque") == "unknown":
            raise InputError("hardware", self.reason, "then start again")

    def episode(self, ticks: int) -> Outcome:
        """Place the robot, arm, wait for `ticks` admitted commands or the end of ACTIVE, and come back to STANDBY.

        Raises:
            EStopError: Before it was armed.
            InputError: A service refused, or nothing came of it in time.
        """
        before, self._estopped = self.state, self.state is State.ESTOP
        self._place()
        if before is not State.FAULT and self.state is State.FAULT and self._ask is not None:  # while it was asked
            self._place()
        if self.state is State.FAULT:  # only now, so that what the fault named is over
            self._reset()
        self._observations.clear()
        self._admitted.clear()
        self._active_seconds, self._cut = 0.0, ""  # a fault in ARMED leaves them
        self._insist("/monitor/arm")
        begun_or_ended = (State.ACTIVE, State.PARK, State.FAULT, State.ESTOP)
        self.wait(lambda: self.state in begun_or_ended, self._arm_timeout + ANSWER_TIMEOUT)
        self.wait(lambda: len(self._admitted) >= ticks or self.state is not State.ACTIVE, 60 + ticks)
        if self.state is State.ACTIVE:
            self.call("/monitor/disarm")
        self.wait(lambda: self.state not in (*COMMANDED, *RECOVERIES), self._recovery_timeout + ANSWER_TIMEOUT)
        if len(self._admitted) >= ticks:
            self.wait(lambda: self._admitted[ticks - 1] in self._observations, ANSWER_TIMEOUT)
        answered = [stamp for stamp in self._admitted[:ticks] if stamp in self._observations]
        obs = np.array([self._observations[stamp] for stamp in answered], np.float32)
        complete = len(obs) > self.task.episode_steps  # what happens on the way to STANDBY is not part of it
        success = complete and self.task.success(obs[: self.task.episode_steps + 1])
        cut = self._cut or self.reason
        return Outcome(len(answered), self._active_seconds, success, cut, self.state.value, self.reason)

    def _catch_up(self) -> None:
        """Let the bridge see where the robot is now, and hear what has happened while nobody listened."""
        deadline = time.monotonic() + CATCH_UP_SECONDS
        while time.monotonic() < deadline:
            self._executor.spin_once(timeout_sec=0.05)
        self._refuse_estop()

    def _refuse_estop(self) -> None:
        if self._estopped:
            raise EStopError("/monitor/estop", "was called: nothing moves", "call /monitor/reset, then start again")

    def _place(self) -> None:
        """Into a start state. Nobody is asked to reach into a robot under torque without being told of it."""
        self._refuse_estop()
        if self._ask is None:
            self.call(self._placement)
            if not self._seen:
                self._catch_up()
        elif self.state is State.FAULT or self._holds():
            stopped = f"stopped by {self.reason.rstrip('.')}, " if self.state is State.FAULT else ""
            self._have_done(
                self._ask,
                f"{stopped}torque may be on: support what could fall, step back, then press Enter: it will park",
            )
            parked = self._parks()
            self._have_done(self._ask, PLACE if parked else f"TORQUE MAY BE ON, not parked ({self.reason}): {PLACE}")
        else:
            self._have_done(self._ask, PLACE)

    def _have_done(self, ask: Callable[[str], None], what: str) -> None:
        """Ask a person, and hear what happened before and meanwhile."""
        self._catch_up()
        ask(what)
        self._catch_up()

    def _parks(self) -> bool:
        """To STANDBY without torque; False if a fault stays or comes back, or torque is not reported off."""
        try:
            if self.state is State.FAULT:
                self._reset()
            self.call("/monitor/park")
            ended = self._recovery_timeout + ANSWER_TIMEOUT
            parked = State.STANDBY, Event.PARK.value
            self.wait(lambda: (self.state, self.reason) == parked or self.state is State.FAULT, ended)
        except InputError:
            return False
        return self.state is State.STANDBY and not self._holds()

    def _holds(self) -> bool:
        """Whether torque may be on: yes, unless the bridge says that it is off."""
        self.diagnostics.clear()
        with suppress(InputError):
            self.wait(lambda: self.diagnostics.get("torque") == "off", TORQUE_TIMEOUT)
        return self.diagnostics.get("torque") != "off"

    def _reset(self) -> None:
        self._catch_up()
        self._insist("/monitor/reset")
        self.wait(lambda: self.state is State.STANDBY, ANSWER_TIMEOUT)

    def _insist(self, service: str) -> None:
        """A reset is refused until the robot rests, an arm for a second after the monitor was held up."""
        deadline = time.monotonic() + ANSWER_TIMEOUT
        while True:
            try:
                return self.call(service)
            except InputError:
                if time.monotonic() > deadline:
                    raise
            self._catch_up()

    def refresh_diagnostics(self) -> None:
        """Wait for the bridge's next report, which counts everything up to now."""
        self.diagnostics.clear()
        self.wait(lambda: bool(self.diagnostics), ANSWER_TIMEOUT)

    def call(self, service: str, seconds: float = ANSWER_TIMEOUT) -> None:
        """Call a Trigger service; raises InputError with the reason if it is refused, or not answered in `seconds`."""
        future = self._clients[service].call_async(Trigger.Request())
        self.wait(future.done, seconds)
        if not future.result().success:
            raise InputError(service, future.result().message, "see /safety/state and /diagnostics")

    def accepted(self, service: str, seconds: float = ANSWER_TIMEOUT) -> bool:
        """Call a Trigger service; whether it did what it was asked in `seconds`, for those who ask until it does."""
        try:
            self.call(service, seconds)
        except InputError:
            return False
        return True

    def wait(self, condition: Callable[[], bool], seconds: float) -> None:
        """Handle messages until `condition` holds; raises InputError after `seconds` without it."""
        deadline = time.monotonic() + seconds
        while not condition():
            self._check()
            self._executor.spin_once(timeout_sec=0.05)
            if time.monotonic() > deadline:
                where = f"state {self.state.value} ({self.reason})"
                raise InputError(
                    "ROS graph", f"nothing came of it in {seconds:g} s; {where}", "see the nodes' messages"
                )

    def _on_state(self, message: Any) -> None:
        if (heard := topics.read_state(message)) is None:
            return
        state, now = heard[0], time.monotonic()
        if state is State.ACTIVE and self.state is not State.ACTIVE:
            self._active_at = now
        if self.state is State.ACTIVE:
            self._active_seconds = now - self._active_at
            self._cut = "" if state is State.ACTIVE else message.message
        self.state, self.reason = state, message.message
        self._estopped |= state is State.ESTOP or (state is State.FAULT and self.reason == Event.ESTOP.value)

    def _on_observation(self, message: Any) -> None:
        if is_labelled(message):
            stamp, values = named_values(message)
            self._observations[stamp] = list(values.values())

    def _on_verdict(self, message: Any) -> None:
        if message.header.frame_id in ADMITTED:
            self._admitted.append(topics.to_ns(message.header.stamp))

    def _on_timing(self, message: Any) -> None:
        if is_labelled(message):
            self.latency_ms.append(named_values(message)[1]["written_ms"])

    def _on_diagnostics(self, message: Any) -> None:
        for status in message.status:
            if status.name == "bridge":
                self.diagnostics.update({str(pair.key): str(pair.value) for pair in status.values})
            elif status.name == "recorder":
                self.unrecorded = self.unrecorded or str(status.message)
