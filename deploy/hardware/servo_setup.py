"""`landbridge servo`: what answers on a bus of servos, and setting one up."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from rich.console import Console
from rich.prompt import Confirm

from landbridge.deploy.hardware.dynamixel import DYNAMIXEL, DynamixelBus
from landbridge.deploy.hardware.feetech import FEETECH, FeetechBus
from landbridge.deploy.hardware.servo_bus import Bus, NoAnswerError, RefusedError
from landbridge.deploy.hardware.servo_joints import TICKS
from landbridge.errors import InputError

FAMILIES = {"dynamixel": DYNAMIXEL, "feetech": FEETECH}
BUSES: dict[str, type[DynamixelBus] | type[FeetechBus]] = {"dynamixel": DynamixelBus, "feetech": FeetechBus}
HIGHEST_ID = 252  # of both families; 254 is every servo at once
LAST_ID = 30  # looked for unless told otherwise; each missing one costs 20 ms at each rate, 40 where a servo answers


def scan(
    port: str,
    /,
    hardware: Literal["dynamixel", "feetech", "any"] = "any",
    baud: int | None = None,
    last_id: int = LAST_ID,
) -> dict[str, Any]:
    """List the servos that answer on a port, at every baud rate and of both protocols. Nothing is written.

    Example: landbridge servo scan /dev/serial/by-id/usb-FTDI...

    Args:
        port: Serial port of the bus; no other program may use it.
        hardware: What is on the port, which decides the protocol.
        baud: The one rate to try.
        last_id: Highest id to ask for.
    """
    _require_id("--last-id", last_id)
    rates = {name: _rates(name) for name in (BUSES if hardware == "any" else [hardware])}
    if baud is not None:
        known = sorted(set().union(*rates.values()))
        if baud not in known:
            raise InputError("--baud", f"is {baud}, a rate of no such servo", f"name one of {known}")
        rates = {name: [baud] for name, theirs in rates.items() if baud in theirs}
    found, tried = [], []
    for name, theirs in rates.items():
        for rate in theirs:
            with _bus(name, port, rate) as bus:
                tried.append(f"{name} {rate}")
                found += _answering(bus, range(last_id + 1), rate)
    if not found:
        problem = f"nothing answers with ids 0 to {last_id}; tried {', '.join(tried)}"
        raise InputError(port, problem, "check the servos' own power, the wiring, and --last-id")
    return {"servos": found}


def setup(
    port: str,
    /,
    id: int,
    hardware: Literal["dynamixel", "feetech"],
    baud: int = 1_000_000,
    new_id: int | None = None,
    new_baud: int | None = None,
    return_delay_us: int = 0,
    yes: bool = False,
) -> dict[str, Any]:
    """Set up one servo as robot.yaml assumes it to be; on request, also change its id and rate. Its torque goes off.

    Example: landbridge servo setup /dev/ttyUSB0 --hardware dynamixel --id 1 --new-id 3

    Position mode, no offset, direction or position limits of its own (the guard keeps those of robot.yaml), and the
    shortest return delay. Says what it will write, and asks first. Everything is checked before anything is written.
    Feetech's EEPROM is left locked, also where it was not.

    Args:
        port: Serial port of the bus; no other program may use it.
        id: The servo's present id; `landbridge servo scan` finds it.
        hardware: What is on the port, which decides the protocol.
        baud: The servo's present rate.
        new_id: Id to give it; must be free.
        new_baud: Rate to give it.
        return_delay_us: How long it waits before it answers [us].
        yes: Do not ask.
    """
    _require_id("--id", id)
    with _bus(hardware, port, baud) as bus:
        before = _described(bus, id, baud)
        if before is None:
            problem = f"no {hardware} servo {id} answers at {baud} baud"
            raise InputError(port, problem, f"landbridge servo scan {port}")
        if bus.read(id, "model_number") not in bus.family.models:
            known = ", ".join(sorted(model.name for model in bus.family.models.values()))
            problem = f"servo {id} has model {before['model']}; known: {known}"
            raise InputError(port, problem, "set this one up with its vendor's own tool")
        wanted = _wanted(bus, id, new_id, new_baud, return_delay_us)
        changes = {name: value for name, value in wanted.items() if bus.read(id, name) != value}
        if changes and not yes and not _agreed(id, before["model"], changes):
            raise InputError(port, "nothing has been written", "answer y, or use --yes")
        _write(bus, port, id, changes)
    after = wanted.get("id", id), bus.family.bauds[wanted.get("baud_rate", _code(bus, baud, port))]
    with _bus(hardware, port, after[1]) as bus:
        found = _described(bus, after[0], after[1])
        if found is None:
            problem = f"written, but servo {after[0]} does not answer at {after[1]} baud"
            raise InputError(port, problem, f"landbridge servo scan {port}")
        if found["lock"] == "open":
            bus.write(after[0], "lock", 1)
            changes["lock"] = 1
            found |= {"lock": _lock(bus, after[0])}
    return {
        "written": ", ".join(f"{name} = {value}" for name, value in changes.items()) or "nothing",
        "servos": [found],
    }


def _wanted(bus: Bus, id: int, new_id: int | None, new_baud: int | None, delay_us: int) -> dict[str, int]:
    """What registers shall say; id and rate last, for after them the servo is elsewhere."""
    unit = bus.family.return_delay_us
    if not 0 <= delay_us <= 254 * unit:
        raise InputError("--return-delay-us", f"{delay_us} is not in 0 .. {254 * unit}", "0 is the fastest")
    wanted = dict(bus.family.plain) | {"min_position_limit": 0, "max_position_limit": TICKS - 1}
    wanted["return_delay"] = delay_us // unit
    if new_id is not None and new_id != id:
        _require_id("--new-id", new_id)
        if bus.model(new_id) is not None:
            raise InputError("--new-id", f"servo {new_id} is on this bus already", "choose another")
        wanted["id"] = new_id
    if new_baud is not None:
        wanted["baud_rate"] = _code(bus, new_baud, "--new-baud")
    return wanted


def _require_id(option: str, id: int) -> None:
    if not 0 <= id <= HIGHEST_ID:
        raise InputError(option, f"{id} is not in 0 .. {HIGHEST_ID}", "choose another")


def _write(bus: Bus, port: str, id: int, changes: dict[str, int]) -> None:
    if not changes:
        return
    try:
        bus.write(id, "torque_enable", 0)  # Dynamixel takes these with torque off only
        if "lock" in bus.family.table:  # Feetech keeps what is written while it is open
            bus.write(id, "lock", 0)
        for name, value in changes.items():
            with contextlib.suppress(*[NoAnswerError] * (name == "baud_rate")):  # it may answer at either rate
                bus.write(id, name, value)
            id = value if name == "id" else id
    except (NoAnswerError, RefusedError) as error:
        problem = f"stopped while writing {changes}: {error}"
        raise InputError(port, problem, f"see what it has become: landbridge servo scan {port}") from error


def _answering(bus: Bus, ids: Sequence[int], rate: int) -> list[dict[str, Any]]:
    """Rows about the servos that answer, by id.

    Where one does, the silent ids are asked again: while a computer or its adapter stands still for a moment, answers
    come too late, and an id that passes for free may be given to a second servo.
    """
    found = {id: row for id in ids if (row := _described(bus, id, rate)) is not None}
    if found:
        silent = [id for id in ids if id not in found]
        found |= {id: row for id in silent if (row := _described(bus, id, rate)) is not None}
    return [found[id] for id in sorted(found)]


def _described(bus: Bus, id: int, rate: int) -> dict[str, Any] | None:
    """One row about servo `id`; None if it does not answer."""
    number = bus.model(id, tries=1)
    if number is None:
        return None
    model = bus.family.models.get(number)
    row = {"id": id, "baud": rate, "model": model.name if model else f"unknown {bus.family.name} {number}"}
    if model is None:  # nor is its table known: no other register may be asked for
        return row | dict.fromkeys(("volts", "deg_c", "error", "delay_us", "lock"), "")
    return row | {
        "volts": bus.read(id, "present_voltage") / 10,
        "deg_c": bus.read(id, "present_temperature"),
        "error": bus.errors(bus.read(id, "hardware_error")),
        "delay_us": bus.read(id, "return_delay") * bus.family.return_delay_us,
        "lock": _lock(bus, id),
    }


def _lock(bus: Bus, id: int) -> str:
    """Of the EEPROM: while it is open, whatever is written there stays, as what a breaking supply garbles may."""
    if "lock" not in bus.family.table:
        return ""  # Dynamixel's is closed by torque
    return "closed" if bus.read(id, "lock") else "open"


def _agreed(id: int, model: str, changes: dict[str, int]) -> bool:
    written = ", ".join(f"{name} = {value}" for name, value in changes.items())
    servo = f"servo {id} ({model})"
    if not sys.stdin.isatty():
        problem = f"nobody can be asked whether to take torque off and write {written}"
        raise InputError(servo, problem, "answer on a terminal, or use --yes")
    return Confirm.ask(f"{servo}: torque off, then write {written}?", console=Console(stderr=True), default=False)


def _code(bus: Bus, baud: int, where: str) -> int:
    for code, rate in bus.family.bauds.items():
        if rate == baud:
            return code
    raise InputError(where, f"a {bus.family.name} servo has no rate {baud}", f"name one of {_rates(bus.family.name)}")


def _rates(name: str) -> list[int]:
    """Its rates, the likeliest first."""
    return sorted(FAMILIES[name].bauds.values(), key=lambda rate: rate != 1_000_000)


@contextmanager
def _bus(name: str, port: str, baud: int) -> Iterator[Bus]:
    """The bus, closed afterwards; a port that vanishes on the way, or a servo that does, is bad input."""
    bus = BUSES[name](port, baud)
    try:
        yield bus
    except OSError as error:
        raise InputError(
            port, f"the port has gone: {error}", "plug it in again; what was written is in the servo"
        ) from error
    except (NoAnswerError, RefusedError) as error:
        problem = f"a servo answers only sometimes, or refuses to: {error}"
        raise InputError(port, problem, "check its power and wiring, and that no two servos share its id") from error
    finally:
        bus.close()
