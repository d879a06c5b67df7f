"""`landbridge up` and `landbridge record`: the bring-ups of `launch/` for machines without `ros2 launch`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from rich.console import Console

from landbridge.bundle import read_bundle
from landbridge.deploy.hardware import choose_hardware
from landbridge.errors import InputError
from landbridge.files import require_folder, require_new
from landbridge.hardware_spec import DynamixelHardware, FeetechHardware, TwinHardware
from landbridge.robot import Robot, load_robot
from landbridge.signature import require_signature as check_signature
from landbridge.spec import require_positive
from landbridge_nodes import bringup
from landbridge_nodes.bag import METADATA
from landbridge_nodes.bringup import NodeSpec
from landbridge_nodes.parameters import BLACK_BOX_SECONDS
from landbridge_nodes.process import require_one_ros
from landbridge_nodes.processes import Processes
from landbridge_nodes.transport import stay_on_this_machine

if TYPE_CHECKING:
    from landbridge_nodes.neighbours import Neighbours

LEAST_TICKS = 5  # an episode is ended a few before the time is up, and a transition takes two


def record(
    out: Path,
    robot: str = "furuta",
    scenario: str = "severe",
    seconds: float = 60.0,
    seed: int = 0,
    excitation: Path | None = None,
    hardware: str = "",
    port: str = "",
) -> dict[str, Any]:
    """Record target rollouts of the robot or its twin over ROS 2 into an MCAP bag (rosbag2 layout).

    Example: landbridge record --out bags/severe --scenario severe --seconds 60

    Args:
        out: Bag folder to write; must not exist.
        robot: Robot that ships with landbridge, or folder of one.
        scenario: Rung of the robot's scenarios.yaml (twin).
        seconds: Most robot time to record [s], summed over episodes; the last one is cut short if need be.
        seed: Of start states, noise and behaviour.
        excitation: File of `landbridge calibrate excite`, in place of the robot's behaviour `excite`.
        hardware: twin, mcu, dynamixel or feetech, in place of the robot's own line.
        port: Serial port, in place of the robot's own; one alone asks for mcu.
    """
    require_positive("--seconds", seconds)
    with _listening() as neighbours:
        loaded, on_twin = _check(robot, scenario, hardware, port)
        if seconds < LEAST_TICKS * loaded.spec.control_dt:
            problem = f"is {seconds:g}, less than {LEAST_TICKS} control periods of {loaded.spec.control_dt:g} s"
            raise InputError("--seconds", problem, "ask for a minute or so")
        require_new(out)
        if excitation is not None:
            from landbridge.simulation.excitation import read_excitation

            read_excitation(excitation, loaded)
        designed = "" if excitation is None else str(excitation.resolve())
        specs = bringup.record(_name(robot), scenario, seed, str(out.resolve()), designed, hardware, port)
        neighbours.require_none()
    figures = _run(loaded, specs, on_twin, seconds=seconds)
    if not (out / METADATA).is_file():
        problem = "is incomplete: the recorder could not write its end"
        raise InputError(out, problem, "free space, and ingest what there is, or record again")
    return {"bag": str(out), "scenario": _label(specs), **figures}


def up(
    mode: Literal["deploy", "hil", "twin"],
    /,
    bundle: Path | None = None,
    robot: str = "furuta",
    scenario: str = "severe",
    episodes: int = 0,
    record: Path | None = None,
    require_signature: Path | None = None,
    seed: int = 0,
    hardware: str = "",
    port: str = "",
    black_box: Path | None = None,
    black_box_seconds: int = 30,
    compensate: Path | None = None,
) -> dict[str, Any] | None:
    """Start the ROS 2 nodes of a bring-up; run episodes and report, or stay up until Ctrl-C.

    Example: landbridge up deploy --bundle policy.bundle --episodes 20

    Args:
        mode: `deploy` runs a bundle; `hil` runs one on an emulated board (on a real board: `deploy --port`); `twin`
            starts the robot's side alone, for a policy that is started elsewhere.
        bundle: Bundle to run (deploy, hil).
        robot: Robot that ships with landbridge, or folder of one.
        scenario: Rung of the robot's scenarios.yaml (twin, emulated board).
        episodes: Number of episodes to run; 0 leaves arming to you (`/monitor/arm`) and stays up.
        record: Bag folder to write (deploy, hil).
        require_signature: Public key that must have signed the bundle (deploy, hil).
        seed: Of start states and noise.
        hardware: twin, mcu, dynamixel or feetech, in place of the robot's own line (deploy).
        port: Serial port, in place of the robot's own; one alone asks for mcu (deploy).
        black_box: Folder for black-box bags: one of the last seconds before every fault, named after it (deploy).
        black_box_seconds: How far back such a bag reaches [s].
        compensate: calibration.yaml of the robot (deploy, hil). Commands are then compensated for friction that
            `robot.yaml` does not have and for a weak drive, for a policy that knows neither; `landbridge evaluate` says
            beforehand whether it pays.

    Returns:
        What came of the episodes. The exit code is 1 after an e-stop, and if the robot is left in a fault.
    """
    asked: dict[str, Any] = {
        "bundle": bundle,
        "record": record,
        "require_signature": require_signature,
        "episodes": episodes,
        "hardware": hardware,
        "port": port,
        "black_box": black_box,
        "compensate": compensate,
    }
    taken = {parameter.name for parameter in bringup.MODES[mode][1]}
    _require_taken(mode, asked, taken | ({"record", "episodes"} if "bundle" in taken else set()))
    if episodes < 0:
        raise InputError("--episodes", f"is {episodes}", "ask for 1 or more, or 0 to stay up and arm by hand")
    require_positive("--black-box-seconds", black_box_seconds)
    if black_box is None and black_box_seconds != BLACK_BOX_SECONDS.default:
        raise InputError("--black-box-seconds", f"is {black_box_seconds}, of no black box", "add --black-box FOLDER")
    with _listening() as neighbours:
        loaded, simulated = _check(robot, scenario, hardware if mode == "deploy" else "twin", port)
        if "bundle" in taken:
            _check_bundle(bundle, loaded, require_signature, compensate)
        if record is not None:
            require_new(record)
        if black_box is not None:
            require_folder(black_box)
        told = asked | {"robot": _name(robot), "scenario": scenario, "seed": seed, "out": record}
        told |= {"black_box_seconds": black_box_seconds}
        make = bringup.MODES[mode][0]
        specs = make(**{name: _as_text(value) for name, value in told.items() if name in taken})
        neighbours.require_none()
    if not episodes:
        _stay(specs)
    figures = _run(loaded, specs, simulated, episodes=episodes)
    if "left_in" in figures:
        figures.setdefault("failed", f"the robot is left in {figures['left_in']}")
    return {"bundle": str(bundle), "scenario": _label(specs), **figures}


def _require_taken(mode: str, asked: dict[str, Any], taken: set[str]) -> None:
    if useless := [f"--{name.replace('_', '-')}" for name, value in asked.items() if value and name not in taken]:
        raise InputError(f"up {mode}", f"takes no {' or '.join(useless)}", "leave that out, or use `up deploy`")


def _as_text(value: Any) -> Any:
    """Paths as nodes take them, which may run in another folder."""
    return "" if value is None else str(value.resolve()) if isinstance(value, Path) else value


def _listening() -> Neighbours:
    """Listens from now on, while everything else is checked."""
    require_one_ros()
    stay_on_this_machine()
    from landbridge_nodes.neighbours import Neighbours  # only now: it imports rclpy

    return Neighbours()


def _check(robot: str, scenario: str, hardware: str, port: str) -> tuple[Robot, bool]:
    """Everything that can be wrong before a process is started. Returns the robot, and whether it is a twin."""
    from landbridge.simulation.scenario import load_scenario

    loaded = load_robot(robot)
    settings = choose_hardware(loaded.spec, hardware, port)
    if isinstance(settings, TwinHardware):
        load_scenario(loaded, scenario)
        return loaded, True
    from landbridge.deploy.hardware.port import open_port
    from landbridge.deploy.hardware.servo_joints import by_id

    if isinstance(settings, DynamixelHardware | FeetechHardware):
        by_id(loaded, settings)
    open_port(settings.port, settings.baud).close()
    return loaded, False


def _check_bundle(bundle: Path | None, robot: Robot, public_key: Path | None, calibration: Path | None) -> None:
    if bundle is None:
        raise InputError("--bundle", "is missing", "name the output of `landbridge export`")
    read = read_bundle(bundle)
    if public_key is not None:
        check_signature(read, public_key)
    read.require_robot(robot.spec)
    if calibration is not None:
        from landbridge.simulation.compensation import load_compensation, require_nominal

        require_nominal(read.path, read.manifest.provenance)
        load_compensation(calibration, robot)


def _name(robot: str) -> str:
    """A robot's folder as an absolute path, for processes that may run elsewhere; a shipped one keeps its name."""
    return str(Path(robot).resolve()) if Path(robot).is_dir() else robot


def _label(specs: list[NodeSpec]) -> Any:
    """The scenario as the bring-up names it: that of hardware is `hardware`."""
    return next(spec.parameters["scenario"] for spec in specs if spec.name == "bridge")


def _run(
    robot: Robot, specs: list[NodeSpec], simulated: bool, episodes: int = 0, seconds: float = 0.0
) -> dict[str, Any]:
    from landbridge_nodes.episodes import run_episodes  # only now: it imports rclpy

    return run_episodes(robot, specs, episodes, seconds, by_hand=not simulated)


def _stay(specs: list[NodeSpec]) -> NoReturn:
    with Processes(specs) as processes:
        Console(stderr=True).print("up; arm with key A of `landbridge watch` in another terminal, end with Ctrl-C")
        while True:
            processes.check()
            time.sleep(0.2)
