"""The recorder: every topic of the graph, raw, into a bag, a black box, or both.

Messages are never decoded. Chunks are closed and handed to the operating system every `FLUSH_PERIOD`, so `kill -9`
loses no more than that; what it leaves is a bag without `metadata.yaml` and summary, which `landbridge ingest` reads.
A disk that takes no more is named in `/diagnostics` and ends nothing: the robot does without its recorder.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from std_srvs.srv import Trigger

from landbridge import __version__
from landbridge.bag import SPEAKER
from landbridge.bundle import read_bundle
from landbridge.deploy.supervisor import STOPS
from landbridge.robot import RobotSpec, load_robot
from landbridge.simulation.calibrated import digest_of
from landbridge_nodes import topics
from landbridge_nodes.bag import BagWriter
from landbridge_nodes.black_box import BlackBox
from landbridge_nodes.parameters import (
    BLACK_BOX,
    BLACK_BOX_SECONDS,
    BUNDLE,
    COMPENSATE,
    CONTROLLER,
    HARDWARE,
    OUT,
    ROBOT,
    SCENARIO,
    declare,
)
from landbridge_nodes.process import run

NOTED = (SCENARIO.by_default("hardware"), CONTROLLER.by_default(""), HARDWARE, BUNDLE, COMPENSATE)
PARAMETERS = (ROBOT, OUT, BLACK_BOX, BLACK_BOX_SECONDS, *NOTED)
FLUSH_PERIOD = 0.2  # s
DIAGNOSTICS_PERIOD = 1.0  # s


class Recorder(Node):  # type: ignore[misc]
    """Node `recorder`: into `out`, `black_box` or both; what else it is told is noted in the bags, files as digests."""

    def __init__(self) -> None:
        super().__init__("recorder")
        read = declare(self, PARAMETERS)
        spec = load_robot(read["robot"]).spec
        about, self._topics = _about(spec, read), topics.every(spec)
        self._sinks: list[BagWriter | BlackBox] = []
        if read["out"]:
            self._sinks.append(BagWriter(Path(read["out"]), about, self._topics))
        if read["black_box"]:
            folder, tell = Path(read["black_box"]), lambda path: self.get_logger().info(f"black box: {path}")
            box = BlackBox(folder, read["black_box_seconds"], about, self._topics, tell)
            self._sinks.append(box)
            # The bridge, too, names faults: the monitor cannot say that it is lost.
            for topic, fault_in in ((topics.SAFETY_STATE, _stop_reason), (topics.BRIDGE_FAULT, _fault)):
                topics.subscribe(self, topic, self._hear(box, topic.name, fault_in), depth=topics.HISTORY)
        for topic in self._topics:
            topics.subscribe(self, topic, self._keep(topic.name), raw=True, depth=topics.HISTORY)
        self._bundle, self._other = about.get("bundle", ""), ""  # the policy's that the bags name, and one that runs
        topics.subscribe(self, topics.DIAGNOSTICS, self._on_diagnostics, depth=topics.HISTORY)
        self._reported = ""
        self._diagnostics = topics.publish(self, topics.DIAGNOSTICS)
        self.create_service(Trigger, "~/ready", self._on_ready)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(FLUSH_PERIOD, self._flush, clock=steady)
        self.create_timer(DIAGNOSTICS_PERIOD, self._diagnose, clock=steady)

    def close(self) -> None:
        """Complete the bags."""
        for sink in self._sinks:
            sink.close()

    def _on_ready(self, request: Any, response: Any) -> Any:
        """Whether every topic has been found: what is published before is not recorded."""
        missing = [topic.name for topic in self._topics if not self.count_publishers(topic.name)]
        response.success, response.message = not missing, f"no publisher of {missing}" if missing else "recording"
        return response

    def _keep(self, topic: str) -> Any:
        def keep(raw: bytes) -> None:
            now = time.time_ns()
            for sink in self._sinks:
                sink.write(topic, raw, now)

        return keep

    def _hear(self, box: BlackBox, source: str, fault_in: Callable[[Any], str]) -> Any:
        return lambda message: box.hear(source, fault_in(message))

    def _on_diagnostics(self, message: Any) -> None:
        """A policy may be restarted with another bundle: what the bags note is no longer true then."""
        for status in message.status:
            told = {pair.key: pair.value for pair in status.values}.get("bundle", self._bundle)
            if self._bundle and told != self._bundle:
                self._other = f"bundle {told[:12]} runs, the bags name {self._bundle[:12]}: start the bring-up anew"

    def _flush(self) -> None:
        for sink in self._sinks:
            sink.flush()

    def _diagnose(self) -> None:
        lost = [f"not recorded any more: {sink.fault}" for sink in self._sinks if sink.fault]
        fault = "; ".join([*lost, self._other] if self._other else lost)
        if fault and fault != self._reported:
            self.get_logger().error(fault)
        self._reported = fault
        level = DiagnosticStatus.ERROR if fault else DiagnosticStatus.OK
        self._diagnostics.publish(topics.diagnostics_message("recorder", fault, {}, level))


def _about(spec: RobotSpec, read: Mapping[str, Any]) -> dict[str, str]:
    """What is noted in every bag."""
    return {
        "robot": spec.name,
        "robot_hash": spec.digest(),
        "control_rate_hz": repr(spec.control_rate_hz),
        "scenario": read["scenario"],
        "controller": read["controller"],
        "landbridge": __version__,
        SPEAKER: topics.MEASURED,
        **({"hardware": read["hardware"]} if read["hardware"] else {}),
        **({"bundle": read_bundle(Path(read["bundle"])).digest} if read["bundle"] else {}),
        **({"compensation": digest_of(Path(read["compensate"]))} if read["compensate"] else {}),
    }


def _stop_reason(state: Any) -> str:
    """Why the supervisor has stopped the robot; "" if it has not."""
    heard = topics.read_state(state)
    return str(state.message) if heard is not None and heard[0] in STOPS else ""


def _fault(status: Any) -> str:
    """What is wrong with bridge or hardware; "" while nothing is."""
    return str(status.message)


def main() -> None:
    """Entry point of the executable `recorder`."""
    sys.exit(run(Recorder))


if __name__ == "__main__":
    main()
