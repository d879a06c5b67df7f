"""How long it takes until a fault of servos is named, or until they stop, under the arm's own limits.

`pytest -s` prints the times; `benchmarks/servo_faults.py` records them for SAFETY.md.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import closing

import pytest

from landbridge.deploy.hardware.servos import Servos

from .arm import ARM, AWAY, DT, HOME, at, connect, connect_patiently, recover, tell, until
from .rig import Emulated, real_time
from .test_servo_faults import FAULTS

pytestmark = pytest.mark.filterwarnings("ignore:feetech")

# What is too old is named by the next read, and a Feetech servo tells of its torque in every other period only.
NAMED_MS = ARM.spec.safety.max_command_age_ms + 1000 * 2 * DT
BUSY_MS = 20  # allowed for a scheduler that is late on a busy machine
FAR = 1.8  # rad: a goal that is not reached within a watchdog's time


@pytest.mark.parametrize("order", FAULTS)
def test_a_fault_is_named_in_time(
    prompt_servos: Servos, kind: str, arm_bus: Emulated, order: str, record_property: Callable[[str, object], None]
) -> None:
    servos = prompt_servos

    def there() -> bool:
        if servos.fault:  # what a busy machine has caused on the way is no matter
            servos.recover()
        return not servos.fault and at(AWAY, arm_bus)

    until(servos, there, AWAY)
    tick = time.monotonic()
    servos.read()
    servos.write(AWAY)  # the longest reaction is that to a blow right after a period's answers
    assert servos.fault == ""
    struck = time.monotonic()
    arm_bus.order(order)
    time.sleep(max(0.0, tick + DT - time.monotonic()))
    until(servos, lambda: bool(servos.fault), AWAY)
    named = 1000 * (time.monotonic() - struck)
    assert servos.fault in FAULTS[order]
    assert named <= NAMED_MS + BUSY_MS
    tell(record_property, kind, order, named)


def test_a_silent_host(kind: str, arm_bus: Emulated, record_property: Callable[[str, object], None]) -> None:
    """Dynamixel stops by its bus watchdog until a reset; Feetech has none, and goes on to its goal."""
    with real_time(), closing(connect(kind, arm_bus)) as servos:
        recover(servos)
        servos.write([FAR, *HOME[1:]])  # the last that it says for a while
        spoke = time.monotonic()
        position, since = at_rest(arm_bus)
        print(f"{kind}: a silent host's joint rests at {position:.2f} rad on the way to {FAR} rad")
        if kind == "feetech":
            assert position == pytest.approx(FAR, abs=0.1)
        else:
            assert arm_bus.order("status")["watchdog"] == [-1] * 6
            assert position < FAR - 0.1
            servos.write([FAR, *HOME[1:]])  # is refused
            until(servos, lambda: len(servos.stopped) == 6)
            assert at([position], arm_bus, within=0.02)
    with real_time(), closing(connect_patiently(kind, arm_bus)) as servos:
        recover(servos)
        until(servos, lambda: at(HOME, arm_bus), HOME)
        servos.disable()
        until(servos, lambda: not any(arm_bus.order("status")["torque"]))
    tell(record_property, kind, "silent host", 1000 * (since - spoke))


def at_rest(arm_bus: Emulated, seconds: float = 0.2) -> tuple[float, float]:
    """Where the first joint has been for `seconds`, longer than it takes to turn round, and since when [s]."""
    began = since = time.monotonic()
    there = math.inf
    while time.monotonic() < since + seconds:
        assert time.monotonic() < began + 5, "it does not come to rest"
        if abs((position := arm_bus.order("status")["position"][0]) - there) > 0.001:
            there, since = position, time.monotonic()
    return float(there), since
