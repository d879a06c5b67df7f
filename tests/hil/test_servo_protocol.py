"""The emulated servos' framing against the vendors' SDKs, and what ticks mean."""

from __future__ import annotations

import contextlib
import math
import os
import time
import tty
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dynamixel_easy_sdk
import dynamixel_sdk
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from landbridge.deploy.hardware.dynamixel import DYNAMIXEL, DynamixelBus
from landbridge.deploy.hardware.feetech import FEETECH, FeetechBus
from landbridge.deploy.hardware.servo_bus import Bus, NoAnswerError, Register
from landbridge.deploy.hardware.servo_joints import CENTRE, to_position, to_ticks
from landbridge.deploy.hil import dynamixel, feetech
from landbridge.deploy.hil.servo import Servo
from landbridge.deploy.hil.servo_fuzz import fuzz_servos
from landbridge.deploy.hil.wire import Wire
from landbridge.joint import Encoder
from landbridge.robot import load_robot

ARM = load_robot("arm")
PROTOCOLS = {"dynamixel": dynamixel, "feetech": feetech}
VENDOR_NAMES = {  # ours: ROBOTIS'
    "return_delay": "Return Delay Time",
    "hardware_error": "Hardware Error Status",
    "present_voltage": "Present Input Voltage",
    "id": "ID",
    "goal_pwm": "Goal PWM",
}
packets = st.tuples(st.integers(0, 252), st.integers(0, 254), st.binary(max_size=120))


@pytest.mark.parametrize("model", ["xl430_w250", "xm430_w350"])
def test_the_table_is_that_of_robotis(model: str) -> None:
    """Address and size of every register that we name, and the model numbers."""
    folder = Path(dynamixel_easy_sdk.__file__).parent / "control_table"
    lines = (folder / f"{model}.model").read_text().split("[control table]")[1].strip().splitlines()[1:]
    vendor = {name.strip(): (int(address), int(size)) for address, size, name in (line.split("\t") for line in lines)}
    for name, register in DYNAMIXEL.table.items():
        theirs = VENDOR_NAMES.get(name, name.replace("_", " ").title())
        if theirs == "Present Load" and model.startswith("xm"):
            theirs = "Present Current"
        assert vendor[theirs] == (register.address, register.size), name
    numbers = dict(line.split("\t") for line in (folder / "dynamixel.model").read_text().strip().splitlines()[1:])
    for number, (name, _) in DYNAMIXEL.models.items():
        assert numbers[str(number)].removesuffix(".model").replace("_", "-").upper() == name
        text = (folder / numbers[str(number)]).read_text()
        first, later = DYNAMIXEL.shown
        assert f"\n{DYNAMIXEL.indirect}\t2\tIndirect Address 1\n" in text
        assert f"\n{first}\t1\tIndirect Data 1\n" in text
    for file in folder.glob("*_fw52.model"):
        assert f"\n{later}\t1\tIndirect Data 1\n" in file.read_text(), file.name


def test_the_rates_are_those_of_feetech() -> None:
    """SMS_STS.h of Feetech's library: SMS_STS_76800 is 5, which a servo set to 57600 by that code would speak."""
    assert [FEETECH.bauds[code] for code in range(4, 8)] == [115_200, 76_800, 57_600, 38_400]


def test_packed_registers_by_hand() -> None:
    """Side by side in the order of their names, each with all of its bytes."""
    block, later = DYNAMIXEL.packed_blocks()
    assert (block.start, block.length) == (224, 12)
    assert later == replace(block, start=208)
    shown = {name: (at, register) for name, register, at in block.fields}
    assert shown["present_position"] == (8, Register(132, 2, -1))
    assert shown["present_position"][1].decode(b"\xff\xff") == -1
    assert DYNAMIXEL.places()[8:10] == [132, 133]
    assert block.fields[0][0] == "id"
    plain = DYNAMIXEL.block(DYNAMIXEL.measured)
    assert (plain.start, plain.length) == (126, 10)
    assert [at for _, _, at in plain.fields] == [0, 2, 6]


@pytest.mark.parametrize("name", PROTOCOLS)
@given(packet=packets)
def test_a_packet_survives_its_coding(name: str, packet: tuple[int, int, bytes]) -> None:
    protocol = PROTOCOLS[name]
    frame = protocol.encode(*packet)
    assert protocol.split(frame) == ([frame], b"")
    assert protocol.decode(frame) == packet


@pytest.mark.parametrize("name", PROTOCOLS)
@given(chunks=st.lists(st.binary(max_size=40) | st.sampled_from([b"\xff\xff\xfd\x00", b"\xff\xff"]), max_size=8))
def test_any_bytes_are_cut_without_loss_and_stay_bounded(name: str, chunks: list[bytes]) -> None:
    protocol, rest, out = PROTOCOLS[name], b"", b""
    for chunk in chunks:
        frames, rest = protocol.split(rest + chunk)
        for frame in frames:
            protocol.decode(frame)
        out += b"".join(frames)
    assert out + rest == b"".join(chunks)


@pytest.mark.parametrize("name", PROTOCOLS)
@given(noise=st.binary(max_size=30).filter(lambda data: b"\xff" not in data), packet=packets)
def test_a_packet_after_noise_is_found(name: str, noise: bytes, packet: tuple[int, int, bytes]) -> None:
    protocol = PROTOCOLS[name]
    frames, rest = protocol.split(noise + protocol.encode(*packet))
    assert [protocol.decode(frame) for frame in frames if protocol.decode(frame)] == [packet]
    assert rest == b""


@pytest.mark.parametrize("name", PROTOCOLS)
@given(
    id=st.sampled_from([1, 2, 3, 0xFE]),
    instruction=st.sampled_from([1, 2, 3, 8, 0x82, 0x83, 0x8A]) | st.integers(0, 255),
    parameters=st.binary(max_size=40),
)
@example(id=1, instruction=2, parameters=b"\x00\xfe")  # a read longer than a Feetech packet can be
def test_no_instruction_upsets_a_servo(name: str, id: int, instruction: int, parameters: bytes) -> None:
    """Whatever it is told, it answers with packets or not at all, and still knows its model afterwards."""
    family, model = {"dynamixel": (DYNAMIXEL, 1060), "feetech": (FEETECH, 777)}[name]
    protocol = PROTOCOLS[name]
    servos = [Servo(family, joint, i, 1_000_000, model) for i, joint in enumerate(ARM.spec.joints[:2], 1)]
    for reply in protocol.answer(protocol.encode(id, instruction, parameters), servos, 0.0):
        assert reply.startswith(b"\xff\xff")
    for servo in servos:
        servo.live(0.1, 60.0, 1.0)
        assert servo.get("model_number") == model


@given(data=st.binary(max_size=60))
def test_the_crc_is_robotis_own(data: bytes) -> None:
    handler = dynamixel_sdk.PacketHandler(2.0)
    assert dynamixel.crc16(data) == handler.updateCRC(0, list(data), len(data))


def test_packets_by_hand() -> None:
    """The e-Manual's ping of servo 1, and Feetech's manual's of servo 1."""
    assert dynamixel.encode(1, 0x01, b"") == bytes.fromhex("FFFFFD00010300011 94E".replace(" ", ""))
    assert dynamixel.encode(1, 0x55, bytes([0, 6, 4, 0x26])) == bytes.fromhex(
        "FFFFFD0001070055000604 26655D".replace(" ", "")
    )
    assert feetech.encode(1, 0x01, b"") == bytes.fromhex("FFFF010201FB")


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize("fault", ["flip", "half", "lost", "joined"])
def test_a_damaged_packet_is_not_taken_for_a_good_one(name: str, fault: str) -> None:
    """What follows may be lost with it, until a pause: the length may be what was damaged."""
    protocol, sent = PROTOCOLS[name], (7, 0x03, bytes([64, 0, 1]))
    for seed in range(40):
        wire = Wire(np.random.default_rng(seed), protocol.FRAMING)
        wire.inject(fault, 1)
        for _ in range(3):
            wire.push(protocol.encode(*sent), 0.0)
        frames, _ = protocol.split(wire.pop(0.0))
        whole = [packet for packet in map(protocol.decode, frames) if packet is not None]
        assert set(whole) <= {sent}
        assert len(whole) <= 2


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_wrong_length_has_a_right_checksum(name: str) -> None:
    protocol, sent = PROTOCOLS[name], (7, 0x03, bytes([64, 0, 1]))
    sizes = set()
    for seed in range(20):
        wire = Wire(np.random.default_rng(seed), protocol.FRAMING)
        wire.inject("length", 1)
        wire.push(protocol.encode(*sent), 0.0)
        packet = protocol.decode(wire.pop(0.0))
        assert packet is not None
        sizes.add(len(packet.parameters))
    assert sizes == {2, 4}


@given(st.integers(-1023, 1023))
def test_registers_of_either_sign_convention(value: int) -> None:
    for register in (DYNAMIXEL.table["present_load"], FEETECH.table["present_load"]):
        assert register.decode(register.encode(value)) == value
    assert Register(0, 2, 15).encode(-1) == b"\x01\x80"
    assert Register(0, 2, -1).encode(-1) == b"\xff\xff"
    with pytest.raises(OverflowError):
        Register(0, 2, 10).encode(1024)


def test_ticks_by_hand() -> None:
    """A quarter turn is 1024 ticks; a geared, turned and offset encoder: raw = sign * gear * (position + offset)."""
    joint = ARM.spec.joint("elbow")
    assert to_ticks(joint, math.pi / 2) == CENTRE + 1024
    other = joint.model_copy(update={"encoder": Encoder(sign=-1, offset=math.pi / 8, gear=2.0)})
    assert to_ticks(other, math.pi / 8) == CENTRE - 1024
    assert to_position(other, CENTRE - 1024) == pytest.approx(math.pi / 8)
    assert (to_ticks(joint, -9.0), to_ticks(joint, 9.0)) == (0, 4095)


@given(st.integers(0, 4095), st.sampled_from([-1, 1]), st.floats(-1, 1), st.floats(0.2, 5))
def test_ticks_round_trip(ticks: int, sign: int, offset: float, gear: float) -> None:
    joint = ARM.spec.joint("elbow").model_copy(update={"encoder": Encoder(sign=sign, offset=offset, gear=gear)})
    assert to_ticks(joint, to_position(joint, ticks)) == ticks


@pytest.fixture(scope="module", params=[DynamixelBus, FeetechBus])
def deaf_bus(request: pytest.FixtureRequest) -> Iterator[tuple[Bus, int]]:
    """A bus, and the other end of its port, where nobody listens."""
    near, far = os.openpty()
    tty.setraw(far)
    bus = request.param(os.ttyname(far), 1_000_000)
    bus.port.clearPort = lambda: None  # so that what was written before is an answer
    yield bus, near
    bus.close()
    for end in (near, far):
        os.close(end)


@given(
    answer=st.binary(max_size=40)
    | st.binary(max_size=30).map(lambda data: dynamixel.encode(1, 0x55, data))
    | st.binary(max_size=30).map(lambda data: feetech.encode(1, 0, data)),
    fast=st.booleans(),
)
def test_no_answer_upsets_the_driver(deaf_bus: tuple[Bus, int], answer: bytes, fast: bool) -> None:
    """Through the vendors' parsers: any bytes are a measurement of the right servo and length, or NoAnswerError."""
    bus, near = deaf_bus
    bus.port.deadline = time.monotonic() + 0.003
    os.write(near, answer)
    with contextlib.suppress(NoAnswerError):
        assert list(bus.sync_read(bus.family.block(bus.family.measured), [1], fast)) == [1]
    os.read(near, 4096)


@pytest.mark.parametrize("kind", PROTOCOLS)
def test_fuzzed_answers_are_taken_whole_or_not_at_all(kind: Any) -> None:
    """What comes untouched is what the servos said; 10^6 of them by `python benchmarks/servo_fuzz.py`."""
    found = fuzz_servos(kind, ARM.spec.joints[0], frames=20_000, seed=1)
    assert found["sent"] >= 20_000
    assert min(found["taken"], found["left_out"]) > 3000
    assert found.get("wrong", 0) <= {"dynamixel": 0, "feetech": 5}[kind]
