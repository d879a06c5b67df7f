"""Both ends of the protocol: one table, the same bytes, the same verdict on any bytes."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
from cobs import cobs
from hypothesis import given, settings
from hypothesis import strategies as st

from landbridge.deploy.hardware import protocol
from landbridge.deploy.hardware.protocol import CrcError, FramingError, Kind, Receiver, decode, encode
from landbridge.deploy.hil.board import Board, compile_firmware, compile_library
from landbridge.deploy.hil.fuzz import fuzz
from landbridge.deploy.hil.headers import protocol_header, robot_header
from landbridge.deploy.hil.wire import FAULTS, Wire
from landbridge.errors import InputError
from landbridge.robot import Robot, load_robot

FURUTA = load_robot("furuta")
BODIES = st.binary(min_size=protocol.HEADER_FORMAT.size, max_size=protocol.FRAME_MAX - protocol.CRC_SIZE)


class NoPins:
    """The coding alone is tested."""

    def __getattr__(self, name: str) -> object:
        raise AssertionError(f"the codec called {name}")


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Board:
    return Board(FURUTA, NoPins(), compile_library(FURUTA, tmp_path_factory.mktemp("board")))  # type: ignore[arg-type]


def verdict(coded: bytes) -> bytes | int:
    """Python's answer in C's terms."""
    try:
        decode(coded)
    except FramingError:
        return -1
    except CrcError:
        return -2
    return bytes(cobs.decode(coded))[: -protocol.CRC_SIZE]


def test_the_committed_header_is_the_rendered_one(repository: Path) -> None:
    assert (repository / "deploy/firmware/protocol.h").read_text() == protocol_header()


def test_a_frame_by_hand() -> None:
    """DISABLE, sequence 2, session 0x01020304, time 5: zeros are replaced by the way to the next zero."""
    body = bytes([1, 4, 2, 0, 4, 3, 2, 1, 5, 0, 0, 0])
    crc = zlib.crc32(body).to_bytes(4, "little")
    assert 0 not in crc
    expected = b"\0" + bytes([4, 1, 4, 2, 6, 4, 3, 2, 1, 5, 1, 1, 5]) + crc + b"\0"
    assert encode(Kind.DISABLE, 2, 0x01020304, 5) == expected


@given(body=BODIES)
@settings(max_examples=300)
def test_c_reads_what_python_writes_and_the_reverse(board: Board, body: bytes) -> None:
    coded = cobs.encode(body + zlib.crc32(body).to_bytes(4, "little"))
    assert board.encode(body) == coded
    assert board.decode(coded) == body
    frame = decode(coded)
    assert (
        encode(frame.kind, frame.sequence, frame.session, frame.time_us, frame.payload, frame.version)
        == b"\0" + coded + b"\0"
    )


@given(coded=st.binary(min_size=1, max_size=300))
@settings(max_examples=500)
def test_both_parsers_agree_on_any_bytes(board: Board, coded: bytes) -> None:
    assert board.decode(coded) == verdict(coded)


@given(body=BODIES, at=st.integers(min_value=0), bit=st.integers(0, 7))
@settings(max_examples=500)
def test_no_flipped_bit_passes(board: Board, body: bytes, at: int, bit: int) -> None:
    coded = bytearray(cobs.encode(body + zlib.crc32(body).to_bytes(4, "little")))
    coded[at % len(coded)] ^= 1 << bit
    assert board.decode(bytes(coded)) == verdict(bytes(coded))
    assert board.decode(bytes(coded)) in (-1, -2)


@given(frames=st.lists(BODIES, max_size=8), cuts=st.lists(st.integers(0, 2000), max_size=20))
@settings(max_examples=100)
def test_frames_survive_any_chunking(frames: list[bytes], cuts: list[int]) -> None:
    wire = b"".join(cobs.encode(body + zlib.crc32(body).to_bytes(4, "little")) + b"\0" for body in frames)
    edges = sorted({0, len(wire), *(cut for cut in cuts if cut < len(wire))})
    receiver = Receiver()
    found = [frame for a, b in itertools.pairwise(edges) for frame in receiver.feed(wire[a:b])]
    assert [protocol.HEADER_FORMAT.pack(*frame[:5]) + frame.payload for frame in found] == frames
    assert (receiver.crc_errors, receiver.framing_errors) == (0, 0)


def test_a_line_without_delimiters_costs_no_memory() -> None:
    receiver = Receiver()
    for _ in range(100):
        assert receiver.feed(b"\x55" * 10_000) == []
    assert len(receiver._rest) <= protocol.CODED_MAX + 1
    assert receiver.feed(b"\0" + encode(Kind.HELLO, 1, 7, 0))[0].session == 7
    assert receiver.framing_errors == 1


@pytest.mark.parametrize("fault", FAULTS)
def test_every_wire_fault_damages_one_frame_and_spares_the_next(fault: str) -> None:
    for seed in range(50):
        wire, receiver = Wire(np.random.default_rng(seed)), Receiver()
        wire.inject(fault, 1)
        for sequence in range(4):
            wire.push(encode(Kind.COMMAND, sequence, 7, 0, b"12345678"), 0.0)
        arrived = receiver.feed(wire.pop(0.0))
        intact = [f.sequence for f in arrived if f.payload == b"12345678" and f.session == 7]
        expected = [0, 0, 1, 2, 3] if fault == "duplicate" else [0, 1, 2, 3] if fault == "joined" else [1, 2, 3]
        assert intact[-len(expected) :] == expected
        wire.latency = 0.1
        wire.push(encode(Kind.STOP, 9, 7, 0), 1.0)
        assert wire.pop(1.05) == b""
        assert wire.pop(1.11) == encode(Kind.STOP, 9, 7, 0)


def test_fuzzed_frames_crash_neither_parser_and_are_counted_alike(tmp_path: Path) -> None:
    """10^5 here; `python benchmarks/link.py` sends 10^6."""
    found = fuzz(FURUTA, tmp_path, frames=100_000, seed=1)
    assert {k: found["c"][k] for k in ("crc_errors", "framing_errors")} == {
        k: found["python"][k] for k in ("crc_errors", "framing_errors")
    }
    assert min(found["c"]["crc_errors"], found["c"]["framing_errors"], found["c_refused"]) > 1000
    assert found["c_passes_running"] > 100
    assert found["whole_frames"] > 50_000


def test_the_firmware_compiles_for_cortex_m(tmp_path: Path, repository: Path) -> None:
    compiler = shutil.which("arm-none-eabi-gcc")
    if compiler is None:
        pytest.skip("arm-none-eabi-gcc is not installed: apt install gcc-arm-none-eabi")
    for source in ("frame.c", "firmware.c"):
        flags = ["-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16", "-ffreestanding"]
        command = [compiler, *flags, "-std=c11", "-Wall", "-Wextra", "-Werror", "-Os", "-c", source]
        subprocess.run([*command, "-o", str(tmp_path / source)], cwd=repository / "deploy/firmware", check=True)
        assert (tmp_path / source).stat().st_size > 0


def test_warnings_are_errors_also_for_conversions(tmp_path: Path) -> None:
    strict = ("-shared", "-fPIC", "-Wconversion", "-Wshadow", "-Wpedantic")
    assert compile_firmware(FURUTA, tmp_path, "firmware.so", *strict).stat().st_size > 0


def test_a_table_that_the_link_cannot_carry_is_refused() -> None:
    joints = [FURUTA.spec.joints[0].model_copy(update={"name": f"j{i}"}) for i in range(17)]
    many = FURUTA.spec.model_copy(update={"joints": tuple(joints)})
    with pytest.raises(InputError, match="17 joints, the link carries 16"):
        robot_header(Robot(many, FURUTA.folder))
    long = FURUTA.spec.model_copy(update={"joints": (joints[0].model_copy(update={"name": "j" * 25}),)})
    with pytest.raises(InputError, match="more than 24 bytes"):
        robot_header(Robot(long, FURUTA.folder))
