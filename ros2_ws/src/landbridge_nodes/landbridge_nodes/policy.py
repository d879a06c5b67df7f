"""The policy node: a verified bundle in, commands out, and in `/diagnostics` whether the robot has changed."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from numpy.typing import NDArray
from rclpy.clock import Clock, ClockType

from landbridge.bundle import read_bundle
from landbridge.deploy.drift import Written, watch_of
from landbridge.deploy.runtime import load_policy
from landbridge.real_time import CONTROLLER_PRIORITY
from landbridge.simulation.compensation import load_compensation, require_nominal
from landbridge_nodes import topics
from landbridge_nodes.controller import Controller
from landbridge_nodes.parameters import BUNDLE, COMPENSATE, PRECISION, PROVIDER, REQUIRE_SIGNATURE, ROBOT, STRICT
from landbridge_nodes.process import run

PARAMETERS = (ROBOT, BUNDLE, REQUIRE_SIGNATURE, PROVIDER, PRECISION, STRICT, COMPENSATE)
DIAGNOSTICS_PERIOD = 1.0  # s


class PolicyNode(Controller):
    """Lifecycle node `policy`.

    Raises:
        InputError: The bundle is broken, not signed as required, is for another robot, or does not reproduce its golden
            vectors here; the calibration is of another robot, or the policy was trained for a calibrated one.
    """

    def __init__(self) -> None:
        super().__init__("policy", PARAMETERS)
        bundle = read_bundle(Path(self.told["bundle"]))
        if public_key := self.told["require_signature"]:
            from landbridge.signature import require_signature  # only now: it imports the command line's parser

            require_signature(bundle, Path(public_key))
        bundle.require_robot(self.spec)
        self._policy = load_policy(bundle, (self.told["provider"],), self.told["strict"], self.told["precision"])
        self._digest, self._watch = bundle.digest, watch_of(bundle)
        if calibration := self.told["compensate"]:
            require_nominal(bundle.path, bundle.manifest.provenance)
            self.compensation = load_compensation(Path(calibration), self.robot)
        self._written = Written(self.observer)
        self._unwatched = ""  # why drift is watched no more
        self._diagnostics = topics.publish(self, topics.DIAGNOSTICS)
        self.create_timer(DIAGNOSTICS_PERIOD, self._diagnose, clock=Clock(clock_type=ClockType.STEADY_TIME))
        watched = "watched for drift" if self._watch else "not watched for drift: the bundle has no target model"
        where = f"{self._policy.provider} in {self._policy.precision}"
        compensated = f", compensated by {self.compensation.digest[:12]}" if self.compensation else ""
        self.get_logger().info(f"bundle {bundle.digest[:12]} on {where}, {watched}{compensated}")

    def act(self, obs: NDArray[np.float32]) -> NDArray[np.floating]:
        """One inference; before tick 0 nothing has reached the motors, and a recurrent policy remembers nothing."""
        if self._ticks == 0:
            self._policy.reset()
        return self._policy(obs)

    def acted(self, obs: NDArray[np.float32], action: NDArray[np.float64], command: NDArray[np.float64]) -> None:
        """Watch for drift, when nobody waits for it any more."""
        if self._watch is None:
            return
        seen, done = (obs, action) if self.compensation is None else self._written(obs, command)
        try:
            self._watch.update(seen, done)
        except Exception as error:  # it warns and stops nothing, and onnxruntime's errors share no other base
            self._watch = None
            self._unwatched = f"not watched for drift any more: {error!r}"
            self.get_logger().error(self._unwatched)

    def begin(self) -> None:
        """The next tick follows no other."""
        if self._watch is not None:
            self._watch.restart()
        self._written.restart()

    def _diagnose(self) -> None:
        """ERROR for a policy that fell silent; WARN once a monitor has raised an alarm or failed, until the end."""
        alarms = {} if self._watch is None else self._watch.alarms
        raised = [name for name, alarm in alarms.items() if alarm.raised]
        policy = self._policy
        values: dict[str, object] = {
            "bundle": self._digest,
            "provider": policy.provider,
            "precision": policy.precision,
        }
        if self.compensation is not None:
            values["compensation"] = self.compensation.digest
        if policy.precision == "int8":
            values["answered_by_cpu"] = policy.outside
        for name, alarm in alarms.items():
            values |= {f"{name}.mean": alarm.mean, f"{name}.limit": alarm.limit, f"{name}.raised": alarm.raised}
        text = self.fault or self._unwatched or (f"drift: {', '.join(raised)}" if raised else "")
        level = DiagnosticStatus.ERROR if self.fault else DiagnosticStatus.WARN if text else DiagnosticStatus.OK
        self._diagnostics.publish(topics.diagnostics_message("policy", text, values, level))


def main() -> None:
    """Entry point of the executable `policy`."""
    sys.exit(run(PolicyNode, CONTROLLER_PRIORITY))


if __name__ == "__main__":
    main()
