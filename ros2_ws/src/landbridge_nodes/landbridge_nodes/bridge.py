"""The bridge: owns the only hardware handle, measures at the control rate, and lets commands through its guard.

Publishes `/joint_states` on a steady timer; judges each `/policy/command` the moment it comes and writes it at once;
stops the robot itself when the supervisor leaves ACTIVE or falls silent, or no admissible command comes. Ages count
from the measurement that a command answers, on the clock `uptime`. Before it ends it parks the robot,
unless something has stopped it.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from sensor_msgs.msg import JointState
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from landbridge.deploy.clock import uptime
from landbridge.deploy.guard import IDLE, Guard
from landbridge.deploy.guarded import Guarded
from landbridge.deploy.hardware import Hardware, Resettable, choose_hardware, open_hardware
from landbridge.deploy.supervisor import COMMANDED, STOPS, State
from landbridge.errors import InputError
from landbridge.real_time import BRIDGE_PRIORITY
from landbridge.robot import load_robot
from landbridge.verdict import Reason, Verdict
from landbridge_nodes import topics
from landbridge_nodes.bridge_report import BridgeReport, News
from landbridge_nodes.parameters import HARDWARE, PORT, ROBOT, SCENARIO, SEED, declare
from landbridge_nodes.process import PARK_SECONDS, run

PARAMETERS = (ROBOT, HARDWARE, PORT, SCENARIO, SEED)
DIAGNOSTICS_PERIOD = 1.0  # s
PORT_SECONDS = 10.0  # from the start for a port to appear: its board may be starting too, or just be plugged in
PARKABLE = (*IDLE, *COMMANDED, State.PARK)  # out of any other state motion needs a reset first
SETTLING = (State.PARK, *STOPS)  # states in which the monitor waits for the robot to come to rest
MOVABLE = (State.UNCONFIGURED, State.STANDBY, State.FAULT, State.ESTOP)  # states in which a twin may be put elsewhere


class Bridge(LifecycleNode):  # type: ignore[misc]
    """Lifecycle node `bridge`."""

    def __init__(self) -> None:
        super().__init__("bridge")
        read = declare(self, PARAMETERS)
        self.robot = load_robot(read["robot"])
        self.spec = self.robot.spec
        self.guard = Guard(self.spec)
        self._guarded: Guarded | None = None  # with the hardware, while that is open
        self._parameters_read = read
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer: Any = None
        self._stamp = 0
        self._refused = ""  # why the hardware could not be opened
        self._started_at = uptime()
        self._heard = False  # whether a monitor has been
        self._unsaid = 0  # messages that the middleware did not take
        self._stopped_by = Reason.STOPPED.value  # what the monitor has said of the stop that it commanded
        self._report = BridgeReport(self, self.spec.control_dt)
        self._measurement = JointState(header=Header(frame_id=topics.MEASURED), name=self.spec.joint_names)
        self._timing = topics.array_message(0, topics.TIMING, [])
        self._joint_states = topics.publish(self, topics.JOINT_STATES)
        self._base = [topics.publish(self, t) for t in topics.measured(self.spec) if t is not topics.JOINT_STATES]
        self._commands = topics.publish(self, topics.GUARD_COMMAND)
        self._timings = topics.publish(self, topics.GUARD_TIMING)
        topics.subscribe(self, topics.COMMAND, self._on_command)
        self._safety = topics.subscribe(self, topics.SAFETY_STATE, self._on_state)
        self.create_service(Trigger, "~/reset_plant", self._on_reset_plant)
        self.create_timer(DIAGNOSTICS_PERIOD, self._diagnose, clock=self._steady)

    @property
    def hardware(self) -> Hardware | None:
        """While it is open."""
        return None if self._guarded is None else self._guarded.hardware

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Open the hardware."""
        read = self._parameters_read
        try:
            settings = choose_hardware(self.spec, read["hardware"], read["port"])
            if self._awaits(getattr(settings, "port", None)):
                return TransitionCallbackReturn.FAILURE
            hardware = open_hardware(self.robot, settings, read["scenario"], read["seed"])
        except InputError as error:
            if str(error) != self._refused:  # the monitor tries again and again
                self.get_logger().error(str(error))
            self._refused = str(error)
            self._report_fault()
            return TransitionCallbackReturn.FAILURE
        self._refused, self._guarded = "", Guarded(self.guard, hardware)
        self.guard.torque_is_off()  # what it has commanded through another handle is in effect no more
        if self._guarded.holds:
            remedy = "support what would fall, and call /monitor/park: it takes torque off where the joints stand"
            self.get_logger().error(f"torque is on that this bridge has not given: {remedy}")
        return super().on_configure(state)

    def _awaits(self, port: str | None) -> bool:
        """Whether there is no such port yet, and it is too early to call that a fault."""
        if not port or Path(port).exists() or uptime() - self._started_at > PORT_SECONDS:
            return False
        self.get_logger().info(f"waits for {port}", once=True)
        return True

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Measure, and stop the robot until the supervisor says ACTIVE."""
        self._report.restart_ticks()
        self._timer = self.create_timer(self.spec.control_dt, self._tick, clock=self._steady)
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Park or stop, and cease to measure: somebody else's wish, for the monitor wants this node active always."""
        self._park()
        self._stopped_by = "deactivated"
        self.guard.supervise(State.FAULT, self.guard.epoch, uptime())
        self._report_fault()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release the hardware."""
        self.close()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release the hardware."""
        self.close()
        return super().on_shutdown(state)

    def close(self) -> None:
        """Park or stop, and release the hardware."""
        try:
            self._park()
        finally:
            if self._guarded is not None:
                self._guarded.hardware.close()
                self._guarded = None

    def _park(self) -> None:
        """Park, or bring a stop to its end, in no more than PARK_SECONDS.

        A robot that something has stopped, or that is not parked by then, is left standing, powered, lest it fall.
        """
        if self._timer is None:
            return
        assert self._guarded is not None  # it is active
        self.destroy_timer(self._timer)
        self._timer = None
        left, deadline = self.guard.state, uptime() + PARK_SECONDS
        parks = left is State.PARK or (self.guard.powered and left in PARKABLE)
        ended = not (parks or self.guard.powered)
        while not ended and (now := uptime()) < deadline:
            self._hear_stop()
            state = State.PARK if parks and self.guard.fault is None else State.FAULT
            self.guard.supervise(state, self.guard.epoch, now)
            self._tick()
            ended = self._guarded.has_ended(now) and not (state is State.PARK and self._guarded.holds)
            time.sleep(max(0.0, now + self.spec.control_dt - uptime()))
        if self._guarded.holds:
            remedy = "support the robot and cut its power, or start again and arm: a disarm parks it"
            self.get_logger().error(f"torque is left on ({self._fault or left.value}): {remedy}")

    def _hear_stop(self) -> None:
        """An e-stop while the bridge parks by itself: no executor hands it over before that has ended."""
        taken = self._safety.handle.take_message(topics.SAFETY_STATE.message, False)
        heard = None if taken is None else topics.read_state(taken[0])
        if heard is not None and heard[0] in STOPS:
            self._on_state(taken[0])

    def _tick(self) -> None:
        now = self._measure()
        self._report.count_tick(now)
        self._apply(self.guard.tick(now))

    def _measure(self) -> float:
        """Take one measurement, and publish it unless it is the last one again; returns the time."""
        assert self._guarded is not None
        found = self._guarded.read()
        if not found.news:
            return found.now
        self._stamp = time.time_ns() - round((found.now - found.taken) * 1e9)
        if found.base is not None:
            for publisher, message in zip(self._base, topics.base_messages(self._stamp, found.base), strict=True):
                self._say(publisher, message)
        fields = {"position": found.position, "velocity": found.velocity}
        self._say(self._joint_states, topics.joint_message_again(self._measurement, self._stamp, **fields))
        self._guarded.judge(self._stamp, found)  # while the controller answers
        return found.now

    def _say(self, publisher: Any, message: Any) -> None:
        """Publish; what cannot be said keeps the guard from nothing."""
        try:
            publisher.publish(message)
        except rclpy_implementation.RCLError as error:
            self._unsaid += 1
            self.get_logger().error(f"not published: {error}", throttle_duration_sec=1.0)

    def _on_command(self, message: Any) -> None:
        received = uptime()
        stamp = topics.to_ns(message.header.stamp)
        verdict = self.guard.admit(stamp, message.name, getattr(message, self.spec.action.kind), received)
        gated = uptime()
        if verdict.write and self.hardware is not None:
            self.hardware.write(verdict.command)
        written = uptime()
        self._publish_command(stamp, verdict)
        measured = self.guard.measured_at(stamp)
        if measured is not None:
            times = [(t - measured) * 1000 for t in (received, gated, written)]
            self._say(self._timings, topics.array_message_again(self._timing, stamp, [*times, measured * 1000]))
            if verdict.write:
                self._report.latency_ms.append(times[-1])
        self._report_fault()

    def _on_state(self, message: Any) -> None:
        if (heard := topics.read_state(message)) is None:
            self.get_logger().error(f"not a monitor's, and ignored: {message.name!r}", throttle_duration_sec=1.0)
            return
        before, now = self.guard.state, uptime()
        state, epoch = heard
        reset = self._heard and epoch > self.guard.epoch  # the first one heard is that of a reset before this process
        self._heard = True
        if reset and self._guarded is not None:
            self._guarded.recover()
        self.guard.supervise(state, epoch, now)
        if state in STOPS:
            self._stopped_by = message.message
        if self.guard.state is State.ACTIVE and isinstance(self.hardware, Resettable):
            self.hardware.let_go()
        if self.guard.state is not before and self._timer is not None:
            self._apply(self.guard.tick(now))
        self._report_fault()

    def _apply(self, stop: Verdict | None) -> None:
        if stop is not None and self._guarded is not None:
            self._guarded.apply(stop)
            self._publish_command(self._stamp, stop)
        self._report_fault()

    def _publish_command(self, stamp: int, verdict: Verdict) -> None:
        kind = self.spec.action.kind
        reason = verdict.reason.value
        message = topics.joint_message(stamp, self.spec.actuated, kind, verdict.command, frame_id=reason)
        self._say(self._commands, message)

    def _report_fault(self) -> None:
        """Publish what is wrong, warnings, and the end of a recovery."""
        judge = self.guard.settled if self._guarded is None else self._guarded.has_ended
        ended = self.guard.state in SETTLING and (bool(self._refused) or judge(uptime()))
        warning = "" if self.hardware is None else self.hardware.warning
        settled = self.guard.state.value if ended else ""
        self._report.tell(News(self._fault, warning, settled, self.guard.epoch, self.guard.powered))

    @property
    def _fault(self) -> str:
        """What is wrong, the cause before its consequence in the guard; "" if nothing is."""
        if broken := self._refused or (self.hardware.fault if self.hardware is not None else ""):
            return broken
        latched = self.guard.fault
        return "" if latched is None else self._stopped_by if latched is Reason.STOPPED else latched.value

    def _on_reset_plant(self, request: Any, response: Any) -> Any:
        if self.guard.state not in MOVABLE:
            response.success, response.message = False, f"refused in {self.guard.state.value}: disarm first"
        elif not isinstance(self.hardware, Resettable):
            response.success, response.message = False, "refused: this is not a twin"
        else:
            self.hardware.reset()
            self.guard.torque_is_off()
            self._measure()  # arming may come before the next tick: it must not start from where the robot was
            response.success, response.message = True, "held at the next start state until ACTIVE"
        return response

    def _diagnose(self) -> None:
        values: dict[str, object] = {f"guard.{name}": count for name, count in sorted(self.guard.counters.items())}
        values["unpublished"] = self._unsaid
        values["torque"] = "unknown" if self._guarded is None else "on" if self._guarded.holds else "off"
        if self.hardware is not None:
            told = {**self.hardware.counters, **getattr(self.hardware, "readings", {})}
            values |= {f"hardware.{name}": value for name, value in sorted(told.items())}
        self._report.diagnose(values)


def main() -> None:
    """Entry point of the executable `bridge`."""
    sys.exit(run(Bridge, BRIDGE_PRIORITY))


if __name__ == "__main__":
    main()
