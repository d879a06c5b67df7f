"""The drivers of servo buses against emulated ones: every fault named, the arm safe, and a reset that finds it well."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from landbridge.deploy.guard import Guard
from landbridge.deploy.hardware import Reporting, choose_hardware
from landbridge.deploy.hardware.servo_bus import Block, NoAnswerError
from landbridge.deploy.hardware.servo_poll import Poll
from landbridge.deploy.hardware.servos import Servos
from landbridge.deploy.supervisor import State
from landbridge.errors import InputError
from landbridge.hardware_spec import DynamixelHardware, FeetechHardware
from landbridge.robot import Robot, load_robot

from .rig import FURUTA, Emulated, real_time

ARM = load_robot("arm")
DT = ARM.spec.control_dt
HOME = [joint.default_joint_pos for joint in ARM.spec.joints]
AWAY = [0.3, -0.3, 0.4, 0.3, 0.5, 0.2]  # rad
SETTINGS: dict[str, type[DynamixelHardware | FeetechHardware]] = {
    "dynamixel": DynamixelHardware,
    "feetech": FeetechHardware,
}
PATIENT_MS = 400.0  # where time is not what is tested: a busy machine may be this late

FAULTS = {  # order: the faults that it may be named
    "gone elbow": {"servo_silent:elbow"},
    "wrong_id elbow 77": {"servo_silent:elbow"},
    "torque_lost elbow": {"torque_lost:elbow"},
    "overload elbow": {"servo_overload:elbow"},
    "temperature elbow 75": {"servo_overheated:elbow"},
    "voltage elbow 5.5": {"servo_voltage:elbow"},
    "lost to_host": {f"servo_silent:{joint}" for joint in ARM.spec.joint_names},
    "flip to_host": {f"servo_silent:{joint}" for joint in ARM.spec.joint_names},
    "length to_host": {f"servo_silent:{joint}" for joint in ARM.spec.joint_names},
    "unplug": {"port_lost"},
}


@pytest.fixture
def servos(kind: str, arm_bus: Emulated) -> Iterator[Servos]:
    """A driver in order, patient; afterwards there must be no fault left, and no torque."""
    with real_time():
        driver = connect_patiently(kind, arm_bus)
        try:
            yield driver
            arm_bus.order("plug")
            arm_bus.order("clear")
            recover(driver)
            driver.disable()
            until(driver, lambda: not any(arm_bus.order("status")["torque"]))
            assert driver.fault == ""
        finally:
            driver.close()


def connect(kind: str, arm_bus: Emulated, robot: Robot = ARM, **changes: object) -> Servos:
    return Servos(robot, SETTINGS[kind](port=arm_bus.port, **changes))


def connect_patiently(kind: str, arm_bus: Emulated) -> Servos:
    safety = ARM.spec.safety.model_copy(update={"max_command_age_ms": PATIENT_MS})
    patient = Robot(ARM.spec.model_copy(update={"safety": safety}), ARM.folder)
    return connect(kind, arm_bus, patient, **({"watchdog_ms": PATIENT_MS} if kind == "dynamixel" else {}))


def until(
    servos: Servos, condition: Callable[[], bool], command: Sequence[float] | None = None, seconds: float = 4.0
) -> None:
    """A control loop, commanding positions, until `condition` holds."""
    deadline, next_tick = time.monotonic() + seconds, time.monotonic()
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s; fault {servos.fault!r}, {dict(servos.counters)}"
        servos.read()
        if command is not None:
            servos.write(command)
        next_tick += DT
        time.sleep(max(0.0, next_tick - time.monotonic()))


def recover(servos: Servos) -> None:
    """What an operator's reset does, until the servos stay well."""

    def healthy() -> bool:
        if servos.fault:
            servos.recover()
            well.clear()
        well.append(not servos.fault)
        return len(well) > 8  # more than one round of all that is watched

    well: list[bool] = []
    until(servos, healthy)


def at(pose: Sequence[float], arm_bus: Emulated, joint: int = 0, within: float = 0.1) -> bool:
    return abs(arm_bus.order("status")["position"][joint] - pose[joint]) < within


@pytest.mark.filterwarnings("ignore:feetech")
class TestServos:
    def test_positions_and_velocities_by_name(self, servos: Servos, arm_bus: Emulated) -> None:
        until(servos, lambda: at(AWAY, arm_bus, 4, 0.01), AWAY)
        position, velocity = servos.read()
        seen = arm_bus.order("status")
        assert position == pytest.approx(seen["position"], abs=0.01)
        assert velocity == pytest.approx(seen["velocity"], abs=0.1)
        until(servos, lambda: servos.read()[1][0] < -0.3, [-1.0, *AWAY[1:]])

    @pytest.mark.parametrize("order", FAULTS)
    def test_a_fault_is_named_and_left_by_a_reset(self, servos: Servos, arm_bus: Emulated, order: str) -> None:
        until(servos, lambda: at(AWAY, arm_bus), AWAY)
        struck = time.monotonic()
        arm_bus.order(order)
        until(servos, lambda: bool(servos.fault), AWAY)
        print(f"{order}: {servos.fault} after {1000 * (time.monotonic() - struck):.0f} ms")
        assert servos.fault in FAULTS[order]
        assert all(map(math.isnan, servos.read()[0]))
        arm_bus.order("plug" if order == "unplug" else "clear")
        recover(servos)
        until(servos, lambda: at(HOME, arm_bus), HOME)

    def test_a_hot_servo_is_warned_of_and_goes_on(self, servos: Servos, arm_bus: Emulated) -> None:
        until(servos, lambda: at(HOME, arm_bus), HOME)
        arm_bus.order("temperature elbow 68")  # hot for us, not yet for the servo
        until(servos, lambda: servos.warning == "servo_temperature:elbow", HOME)
        until(servos, lambda: at(AWAY, arm_bus), AWAY)
        assert servos.fault == "" and all(map(math.isfinite, servos.read()[0]))
        arm_bus.order("temperature elbow 65")
        until(servos, lambda: servos.warning == "", AWAY)

    def test_a_reset_does_not_drop_a_joint_that_goes_on_in_spite_of_its_error(
        self, servos: Servos, kind: str, arm_bus: Emulated
    ) -> None:
        """A Dynamixel keeps what was wrong with its voltage until it reboots, which would let the joint fall."""
        until(servos, lambda: all(arm_bus.order("status")["torque"]), HOME)
        arm_bus.order("voltage elbow 5.5")
        until(servos, lambda: servos.fault == "servo_voltage:elbow", HOME)
        servos.recover()
        assert all(arm_bus.order("status")["torque"])
        until(servos, lambda: "servo_voltage:elbow" in (servos.fault, servos.warning), HOME)  # it is still too low
        assert bool(servos.fault) == (kind == "feetech")
        arm_bus.order("voltage elbow 12")
        recover(servos)
        until(servos, lambda: servos.readings["elbow.voltage_mv"] == 12_000 and at(AWAY, arm_bus), AWAY)
        assert all(arm_bus.order("status")["torque"])
        assert servos.fault == ""
        arm_bus.order("torque_lost elbow")
        until(servos, lambda: bool(servos.fault), AWAY)
        assert servos.fault in ("servo_voltage:elbow", "torque_lost:elbow")

    def test_a_reset_does_not_bring_torque_back_to_a_joint_that_has_lost_it(
        self, servos: Servos, arm_bus: Emulated
    ) -> None:
        until(servos, lambda: all(arm_bus.order("status")["torque"]), HOME)
        arm_bus.order("torque_lost elbow")
        until(servos, lambda: bool(servos.fault), HOME)
        recover(servos)
        assert list(servos.limp) == ["elbow"]
        assert arm_bus.order("status")["torque"] == [name != "elbow" for name in ARM.spec.joint_names]

    def test_a_servo_that_forgot_how_to_move_is_told_again_by_a_reset(self, servos: Servos) -> None:
        assert servos._bus is not None
        register, told = next(iter(servos._bus.family.prepared.items()))
        servos._bus.sync_write(register, {3: 20})
        servos.read()
        servos.recover()
        servos._bus.port.deadline = math.inf
        assert servos._bus.read(3, register) == told

    def test_a_lost_answer_or_an_old_firmware_does_not_cost_the_packed_answers(
        self, servos: Servos, kind: str, arm_bus: Emulated, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert servos.readings["packed"] == (kind == "dynamixel")
        if kind == "feetech":
            pytest.skip("feetech servos do not pack")
        bus = servos._bus
        assert bus is not None
        bus.port.deadline = math.inf
        arm_bus.order("lost to_host 1")
        assert Poll(bus, list(servos._joints), time.monotonic, servos.counters).packed
        read = bus.sync_read

        def without_fast(block: Block, ids: Sequence[int], fast: bool = False) -> dict[int, dict[str, int]]:
            if fast:  # older than 45
                raise NoAnswerError(ids[0])
            return read(block, ids)

        monkeypatch.setattr(bus, "sync_read", without_fast)
        assert Poll(bus, list(servos._joints), time.monotonic, servos.counters).packed

    @pytest.mark.parametrize("order", ["gone elbow", "temperature elbow 75"])
    def test_a_reset_does_not_help_while_the_cause_lasts(self, servos: Servos, arm_bus: Emulated, order: str) -> None:
        arm_bus.order(order)
        until(servos, lambda: bool(servos.fault), HOME)
        servos.recover()
        until(servos, lambda: bool(servos.fault), HOME)
        assert servos.fault in FAULTS[order] | {"servo_silent:elbow"}  # while it restarts

    @pytest.mark.parametrize("direction", ["to_board", "to_host"])
    def test_one_damaged_packet_is_no_fault(self, servos: Servos, arm_bus: Emulated, direction: str) -> None:
        for i, damage in enumerate(["flip", "drop", "insert", "half", "length", "lost", "noise", "garbled"]):
            arm_bus.order(f"{damage} {direction} 1")
            pose = AWAY if i % 2 else HOME
            until(servos, lambda pose=pose: at(pose, arm_bus), pose)
            assert servos.fault == "", damage

    def test_one_damaged_answer_is_asked_for_again_in_the_same_period(self, servos: Servos, arm_bus: Emulated) -> None:
        until(servos, lambda: at(HOME, arm_bus), HOME)
        servos._spec = servos._spec.model_copy(update={"control_dt": 0.1})  # a busy machine finds time to ask again
        before, told = servos.counters["bad_answers"], servos.told_at
        arm_bus.order("flip to_host 1")
        servos.read()
        assert servos.counters["bad_answers"] > before
        assert servos.told_at > told

    def test_a_torque_off_that_is_lost_is_repeated(self, servos: Servos, arm_bus: Emulated) -> None:
        until(servos, lambda: all(arm_bus.order("status")["torque"]), HOME)
        arm_bus.order("lost to_board 1")
        servos.disable()
        assert all(arm_bus.order("status")["torque"])
        until(servos, lambda: not any(arm_bus.order("status")["torque"]))

    def test_a_torque_off_that_is_lost_is_repeated_by_close(self, servos: Servos, arm_bus: Emulated) -> None:
        until(servos, lambda: all(arm_bus.order("status")["torque"]), HOME)
        arm_bus.order("lost to_board 2")
        servos.disable()
        servos.close()
        assert not any(arm_bus.order("status")["torque"])
        servos.close()
        servos._open()

    def test_a_torque_off_outlives_a_reset(self, servos: Servos, arm_bus: Emulated) -> None:
        until(servos, lambda: all(arm_bus.order("status")["torque"]), HOME)
        arm_bus.order("lost to_board 1")
        servos.disable()
        servos.recover()
        assert all(arm_bus.order("status")["torque"])
        until(servos, lambda: not any(arm_bus.order("status")["torque"]))
        assert servos.fault == ""

    def test_a_watchdog_that_was_not_armed_is_armed_again(self, servos: Servos, kind: str, arm_bus: Emulated) -> None:
        if kind == "feetech":
            pytest.skip("feetech servos have no bus watchdog")
        until(servos, lambda: all(arm_bus.order("status")["torque"]), HOME)
        arm_bus.order("unwatched elbow")
        until(servos, lambda: min(arm_bus.order("status")["watchdog"]) == PATIENT_MS / 20, HOME)
        assert servos.counters["watchdog_rearmed"] >= 1

    def test_servos_that_have_restarted_are_not_misread(self, servos: Servos, kind: str, arm_bus: Emulated) -> None:
        """Dynamixel then shows zeros, -pi rad, where it was told to show what is measured, until it is told again."""
        until(servos, lambda: all(arm_bus.order("status")["torque"]), HOME)
        servos._stale = 1.0  # s, for they are silent for 0.2 s
        arm_bus.order("reboot")
        seen: list[Sequence[float]] = []
        while not servos.fault:
            seen.append(servos.read()[0])
            assert len(seen) < 1000
        assert servos.fault.startswith("torque_lost")
        assert min(min(position) for position in seen if not math.isnan(position[0])) > -2
        if kind == "dynamixel":
            assert servos.counters["servo_restarted"] == 1
        recover(servos)
        until(servos, lambda: all(arm_bus.order("status")["torque"]) and not servos.fault, HOME)

    def test_servos_without_torque_are_given_no_goal_before_they_are_to_move(
        self, servos: Servos, kind: str, arm_bus: Emulated
    ) -> None:
        """There are servos that take a goal for an order to switch on."""
        until(servos, lambda: servos.torque, AWAY)
        servos.disable()
        until(servos, lambda: not servos.torque)
        goals = arm_bus.order("status")["goal"]
        servos.recover()
        assert arm_bus.order("status")["goal"] == goals
        servos.close()
        arm_bus.order("reset")
        connect(kind, arm_bus).close()
        assert arm_bus.order("status")["goal"] == goals

    def test_a_bus_plugged_in_again_does_not_move_before_a_reset(self, servos: Servos, arm_bus: Emulated) -> None:
        until(servos, lambda: at(AWAY, arm_bus), AWAY)
        arm_bus.order("unplug")
        until(servos, lambda: servos.fault == "port_lost", AWAY)
        arm_bus.order("latency 3")  # slow, but within what an attempt may take
        arm_bus.order("plug")
        until(servos, lambda: servos._reopened, HOME, seconds=15)
        arm_bus.order("latency 0")
        opened = servos.told_at
        until(servos, lambda: servos.told_at > opened + 0.05, HOME)
        goals = arm_bus.order("status")["goal"]
        for _ in range(5):
            servos.write(HOME)
            servos.read()
        assert servos.fault == "port_lost"
        assert arm_bus.order("status")["goal"] == goals
        recover(servos)
        until(servos, lambda: at(HOME, arm_bus), HOME)

    def test_it_reports_torque_watchdog_and_goals_in_effect(self, servos: Servos, kind: str, arm_bus: Emulated) -> None:
        assert isinstance(servos, Reporting)
        assert servos.watchdog == (PATIENT_MS / 1000 if kind == "dynamixel" else math.inf)
        assert "elbow" in servos.identity["servos"]
        until(servos, lambda: servos.torque, HOME)
        before = time.monotonic()
        assert not servos.in_effect(before)
        arm_bus.order("lost to_board 1")
        servos.write(AWAY)
        assert not servos.in_effect(before)
        servos.write(AWAY)
        assert servos.in_effect(before)
        servos.disable()
        until(servos, lambda: not servos.torque)

    def test_a_servo_that_jams_under_load_reports_its_overload(self, servos: Servos, arm_bus: Emulated) -> None:
        arm_bus.order("stuck gripper")
        until(servos, lambda: bool(servos.fault), [*HOME[:5], 1.4])
        assert servos.fault == "servo_overload:gripper"

    def test_the_readings_of_each_servo_are_told(self, servos: Servos, arm_bus: Emulated) -> None:
        arm_bus.order("temperature wrist_roll 41")
        arm_bus.order("voltage gripper 11.1")
        until(servos, lambda: servos.readings.get("wrist_roll.temperature_c") == 41, HOME)
        until(servos, lambda: servos.readings.get("gripper.voltage_mv") == 11_100, HOME)
        assert servos.readings.get("elbow.temperature_c") == 35

    def test_a_second_program_finds_the_port_taken(self, servos: Servos, kind: str, arm_bus: Emulated) -> None:
        with pytest.raises(InputError, match="another program uses this port"):
            connect(kind, arm_bus)

    def test_a_write_while_the_port_vanishes(self, servos: Servos, arm_bus: Emulated) -> None:
        until(servos, lambda: at(HOME, arm_bus), HOME)
        arm_bus.order("unplug")
        servos.write(HOME)
        servos.read()
        assert servos.fault == "port_lost"
        servos.write(HOME)
        servos.disable()

    @pytest.mark.parametrize(
        ("order", "expected"),
        [
            ("frozen shoulder_pan", {"frozen_encoder", "tracking_error"}),
            ("jump shoulder_pan 90", {"position_jump", "velocity_limit"}),
            ("wrap shoulder_pan", {"position_jump"}),
            ("stuck shoulder_pan", {"tracking_error"}),
        ],
    )
    def test_what_only_the_guard_can_see(
        self, servos: Servos, arm_bus: Emulated, order: str, expected: set[str]
    ) -> None:
        """Read and written as the bridge does it, while a policy swings the joint."""
        until(servos, lambda: max(map(abs, servos.read()[1])) < 0.3, HOME)  # it has begun to fall
        guard, stamp = Guard(servos._spec), 0  # as patient
        for state in (State.STANDBY, State.ARMED):
            guard.supervise(state, 1, time.monotonic())
        started = time.monotonic()
        next_tick = started
        while guard.fault is None and (age := time.monotonic() - started) < 8:
            stamp, told, measured = stamp + 1, servos.told_at, servos.read()
            if servos.told_at > told:  # a busy machine may have no news in a period
                guard.measure(stamp, time.monotonic(), *measured)
            if age > 0.6:
                guard.supervise(State.ACTIVE, 1, time.monotonic())
                if age > 1.2 and order:
                    arm_bus.order(order)
                    order = ""
                swing = [1.2 * math.sin(2 * (age - 0.6)), *HOME[1:]]
                guard.admit(stamp, ARM.spec.actuated, swing, time.monotonic())
                servos.write(guard.written)
            else:
                guard.supervise(State.ARMED, 1, time.monotonic())
            if (stop := guard.tick(time.monotonic())) is not None and stop.write:
                servos.write(stop.command)
            next_tick += DT
            time.sleep(max(0.0, next_tick - time.monotonic()))
        assert order == "", f"{guard.fault} before anything was broken; {servos.fault} {servos.read()} {age}"
        assert guard.fault is not None and guard.fault.value in expected, servos.fault

    def test_servos_that_are_not_the_robots(self, kind: str, arm_bus: Emulated) -> None:
        arm_bus.order("model elbow 350")
        with pytest.raises(InputError, match=r"servo 3 \(elbow\) has model number 350; known to the"):
            connect(kind, arm_bus)
        arm_bus.order("clear")
        for order, said in {
            "mode elbow 1": "has operating_mode 1, not",
            "homing elbow -100": "has homing_offset -100, not 0",
            "narrow elbow 3000": "takes goals of 0 to 3000 ticks, and position_limit .* asks for 1005 to 3091",
        }.items():
            arm_bus.order(order)
            with pytest.raises(InputError, match=rf"servo 3 \(elbow\) {said}.*servo setup .* --id 3"):
                connect(kind, arm_bus)
            arm_bus.order("clear")
        arm_bus.order("switches_off elbow 65")
        with pytest.raises(InputError, match=r"max_temperature_c: 65: servo 3 \(elbow\) switches off at 65 deg C"):
            connect(kind, arm_bus)
        arm_bus.order("clear")
        with pytest.raises(InputError, match=r"no answer at 1000000 baud from elbow \(9\)\. .*servo scan"):
            connect(kind, arm_bus, ids={**{n: i for i, n in enumerate(ARM.spec.joint_names, 1)}, "elbow": 9})
        with pytest.raises(InputError, match="no answer at 57600 baud from shoulder_pan"):
            connect(kind, arm_bus, baud=57_600)
        other = next(name for name in SETTINGS if name != kind)
        with pytest.raises(InputError, match="no answer at 1000000 baud"):
            connect(other, arm_bus)
        assert not any(arm_bus.order("status")["torque"])
        connect(kind, arm_bus).close()


@pytest.mark.filterwarnings("ignore:feetech")
def test_a_supply_is_low_by_what_the_model_is_made_for_or_by_what_is_set(bus: tuple[str, Emulated]) -> None:
    kind, arm_bus = bus

    def warning(model: int, volts: float, **settings: object) -> str:
        arm_bus.order("clear")
        for joint in ARM.spec.joint_names:
            arm_bus.order(f"model {joint} {model}")
            arm_bus.order(f"voltage {joint} {volts + (joint != 'elbow')}")
        servos = connect(kind, arm_bus, **settings)
        servos.close()
        assert servos.fault == ""
        return servos.warning

    low = "servo_voltage:elbow"
    made_for = {"dynamixel": {1200: 3.7, 1060: 6.5, 1020: 10.0}, "feetech": {777: 4.5, 2825: 6.0}}
    for model, least in made_for[kind].items():
        assert [warning(model, least), warning(model, least - 0.1)] == ["", low]
        assert [warning(model, least, min_voltage=least + 0.1), warning(model, least, min_voltage=3)] == [low, ""]
    arm_bus.order("clear")


@pytest.mark.filterwarnings("ignore:feetech")
def test_a_silent_host(bus: tuple[str, Emulated]) -> None:
    """Dynamixel stops by its bus watchdog until a reset; Feetech has none, and goes on to its goal."""
    kind, arm_bus = bus
    for words in ("plug", "clear", "reset"):
        arm_bus.order(words)
    with real_time():
        servos = connect(kind, arm_bus, **({"watchdog_ms": 40} if kind == "dynamixel" else {}))
        recover(servos)
        servos.write([1.8, *HOME[1:]])  # the last that it says for a while
        silent = time.monotonic()
        seen = [0.0, 1.0]
        while len(seen) < 100 or abs(seen[-1] - seen[-100]) > 0.001:
            assert time.monotonic() < silent + 3
            seen.append(arm_bus.order("status")["position"][0])
        position = arm_bus.order("status")["position"][0]
        print(f"{kind}: a silent host's joint rests at {position:.2f} rad on the way to 1.8 rad")
        if kind == "feetech":
            assert position == pytest.approx(1.8, abs=0.1)
        else:
            assert arm_bus.order("status")["watchdog"] == [-1] * 6
            assert position < 1.7
            servos.write([1.8, *HOME[1:]])  # is refused
            until(servos, lambda: len(servos.stopped) == 6)
            assert at([position], arm_bus, within=0.02)
        servos.close()
        servos = connect_patiently(kind, arm_bus)
        recover(servos)
        until(servos, lambda: at(HOME, arm_bus), HOME)
        servos.disable()
        until(servos, lambda: not any(arm_bus.order("status")["torque"]))
        servos.close()


def test_feetech_warns_that_it_has_no_watchdog(bus: tuple[str, Emulated]) -> None:
    kind, arm_bus = bus
    if kind != "feetech":
        pytest.skip("of feetech servos only")
    with pytest.warns(UserWarning, match="no bus watchdog"):
        connect(kind, arm_bus).close()


def test_a_port_is_asked_for_by_name() -> None:
    with pytest.raises(InputError, match=r"set it in robot\.yaml or with --port"):
        Servos(ARM, DynamixelHardware())
    assert choose_hardware(ARM.spec, "dynamixel", "/dev/x") == DynamixelHardware(port="/dev/x")


def test_robots_that_servos_cannot_be() -> None:
    def changed(name: str, **changes: object) -> Robot:
        joints = [j.model_copy(update=changes) if j.name == name else j for j in ARM.spec.joints]
        return Robot(ARM.spec.model_copy(update={"joints": tuple(joints)}), ARM.folder)

    with pytest.raises(InputError, match="is effort-commanded"):
        Servos(FURUTA, DynamixelHardware())
    with pytest.raises(InputError, match="not within one turn of its encoder"):
        Servos(changed("elbow", position_limit=(-4.0, 1.0)), DynamixelHardware())
    with pytest.raises(InputError, match="less than two control periods"):
        Servos(ARM, DynamixelHardware(watchdog_ms=39))
    with pytest.raises(InputError, match=r"hardware\.ids names \['elbow'\]"):
        Servos(ARM, DynamixelHardware(ids={"elbow": 1}))
    with pytest.raises(ValueError, match="two joints share a bus id"):
        DynamixelHardware(ids={"elbow": 1, "gripper": 1})


def test_a_bus_where_nobody_answers() -> None:
    ends = os.openpty()
    with pytest.raises(InputError, match="no answer at 1000000 baud from shoulder_pan"):
        Servos(ARM, DynamixelHardware(port=os.ttyname(ends[1])))
    for end in ends:
        os.close(end)
