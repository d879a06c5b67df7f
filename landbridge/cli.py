"""The `landbridge` command: one table of subcommands, each a typed function read by tyro.

A command returns its figures as a dict (or None); they are printed as a table, or as JSON with `--json`. Commands are
imported only when called, so the robot can run `landbridge up` without torch or a simulator.
"""

from __future__ import annotations

import errno
import importlib
import itertools
import json
import math
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from inspect import signature
from typing import Annotated, Any, Literal, NoReturn, get_args, get_origin, get_type_hints

import tyro
from rich.console import Console
from rich.table import Column, Table

from landbridge import __version__
from landbridge.errors import InputError

COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("landbridge.demo:demo", "run the whole pipeline once: logs to a policy on the twin, with a report"),
    "collect": ("landbridge.simulation.collect:collect", "simulate behaviour policies into a source dataset"),
    "record": ("landbridge_nodes.up:record", "record target rollouts over ROS 2 into an MCAP bag"),
    "ingest": ("landbridge.training.ingest:ingest", "turn a bag or a D4RL file into a dataset"),
    "calibrate excite": ("landbridge.calibration.excite:excite", "design the most informative motion, and preview it"),
    "calibrate delay": ("landbridge.calibration.delay:delays", "estimate the robot's command delay from its rollouts"),
    "calibrate zero": (
        "landbridge.calibration.zero:zero",
        "find encoder signs, offsets and gears that are wrong",
    ),
    "calibrate friction": ("landbridge.calibration.friction:friction", "find joints that need a richer friction model"),
    "calibrate identify": ("landbridge.calibration.identify:identify", "estimate gain, masses, friction and latency"),
    "calibrate report": ("landbridge.calibration.report:report", "write one page on a calibration and its limits"),
    "calibrate all": ("landbridge.calibration.pipeline:everything", "run delay, zero, identify and report in order"),
    "diagnose": ("landbridge.training.diagnose:diagnose", "name the gap between two datasets, and what to do about it"),
    "train": ("landbridge.training.train:train", "train an agent on source and target data"),
    "sweep": ("landbridge.training.sweep:sweep", "train and score settings x seeds, on one machine or a Ray cluster"),
    "evaluate": ("landbridge.training.evaluate:evaluate", "score policies in simulation, with intervals"),
    "export": ("landbridge.training.export:export", "turn a training run into a verified bundle"),
    "import": ("landbridge.training.foreign:import_policy", "turn an ONNX policy of rsl_rl or Isaac Lab into a bundle"),
    "sign": ("landbridge.signature:sign", "sign a bundle with a private key"),
    "inspect": ("landbridge.inspection:inspect", "describe a robot, or anything that landbridge has written"),
    "verify": (
        "landbridge.deploy.verify:verify",
        "check a bundle's bytes, signature and golden vectors on this machine",
    ),
    "bench": ("landbridge.deploy.bench:bench", "measure inference on every back end of this machine"),
    "engine build": ("landbridge.deploy.accept:build_engine", "build a TensorRT engine, and test it in closed loop"),
    "replay": ("landbridge_nodes.replay:replay", "re-run a recorded log through bundle and guard, bit for bit"),
    "repair": ("landbridge_nodes.repair:repair", "repair a truncated bag for `ros2 bag`"),
    "rerun": (
        "landbridge_nodes.rrd:rerun",
        "turn a recorded log into a file for the Rerun viewer, with the robot in motion",
    ),
    "up": ("landbridge_nodes.up:up", "start the ROS 2 nodes of a bring-up (deploy, hil, twin)"),
    "state": ("landbridge_nodes.state:state", "print the supervisor's state of a running robot"),
    "watch": ("landbridge_nodes.watch:watch", "watch a running robot in a terminal; keys to arm, disarm, e-stop"),
    "foxglove": (
        "landbridge_nodes.foxglove_server:foxglove",
        "stream a running robot to Foxglove over WebSocket",
    ),
    "deploy push": ("landbridge.deploy.push:push", "put a bundle on a robot's computer, verify it there, switch to it"),
    "hil run": ("landbridge_nodes.hil:run", "acceptance-test a robot's hardware, with a page and junit.xml"),
    "hil emulate": ("landbridge.deploy.hil.command:emulate", "emulate a robot's microcontroller or servos on a pty"),
    "hil joints": ("landbridge.deploy.hil.command:joints", "print the C table of joints for a board's firmware"),
    "hil protocol": ("landbridge.deploy.hil.command:protocol", "print the C header of the protocol"),
    "servo scan": ("landbridge.deploy.hardware.servo_setup:scan", "list the servos that answer on a port"),
    "servo setup": ("landbridge.deploy.hardware.servo_setup:setup", "give a servo its id, baud rate and mode"),
    "robot check": ("landbridge.simulation.check:check", "check a robot folder, and drive the robot in both engines"),
    "robot tune": ("landbridge.simulation.tune:tune", "tune a behaviour's parameters in simulation, in its file"),
    "doctor": ("landbridge.doctor:doctor", "say what this machine can do, and what to install for the rest"),
}
FAILED = 1
INPUT_ERROR = 2
INTERRUPTED = 130
REMEDIES = {errno.ENOSPC: "free space, or name another folder", errno.EDQUOT: "free space, or name another folder"}
ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # Ctrl-C, a service that is stopped, a terminal that is closed
WIDE = 160  # columns of what goes to a file or a pipe, where rich would assume 80


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand. Exit codes: 0, 1 if its figures name what `failed`, 2 for bad input, 130 for Ctrl-C."""
    args = list(sys.argv[1:] if argv is None else argv)
    if args in ([], ["-h"], ["--help"]):
        _print_help(COMMANDS)
        return 0
    if args == ["--version"]:
        print(__version__)
        return 0
    as_json = "--json" in args
    args = [a for a in args if a != "--json"]
    words = 2 if " ".join(args[:2]) in COMMANDS else 1
    name, rest = " ".join(args[:words]), args[words:]
    if name not in COMMANDS:
        return _help_with(args)
    nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    ends = [number for number in ENDS if number != signal.SIGHUP or not nohup]
    before = {number: signal.signal(number, _interrupt) for number in ends}
    formatted, warnings.formatwarning = warnings.formatwarning, _warning
    try:
        _refuse_repeated(rest)
        figures = tyro.cli(_function(name, rest), prog=f"landbridge {name}", args=rest, console_outputs=True)
    except BrokenPipeError:  # whoever read it has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (InputError, OSError, ModuleNotFoundError, EOFError) as error:
        if not isinstance(error, InputError):
            error = _environment(error)
        print(f"landbridge {name}: {error}", file=sys.stderr)
        return INPUT_ERROR
    except KeyboardInterrupt:
        print(f"landbridge {name}: interrupted", file=sys.stderr)
        return INTERRUPTED
    finally:
        warnings.formatwarning = formatted
        for number, handler in before.items():
            signal.signal(number, handler)
    if as_json and figures != {}:  # of the ranks of a `torchrun` one speaks
        print(json.dumps(_without_nan(figures), indent=2))
    elif isinstance(figures, Mapping):
        console = Console(markup=False, highlight=False)
        if not (console.is_terminal or "COLUMNS" in os.environ):
            console.width = WIDE
        for table in _tables(figures):
            console.print(table)
    return FAILED if figures and figures.get("failed") else 0


def _refuse_repeated(args: list[str]) -> None:
    """The last one would count, and the others be dropped silently."""
    options = [arg.partition("=")[0].replace("_", "-") for arg in args if arg.startswith("--")]
    if repeated := [option for option in options if options.count(option) > 1]:
        raise InputError(repeated[0], "is given twice", "give it once: several values go behind one")


def _interrupt(number: int, frame: object) -> NoReturn:
    """ENDS end a command in the same orderly way; what comes on top of that adds nothing, but for a second Ctrl-C."""
    for further in ENDS[1:]:
        signal.signal(further, signal.SIG_IGN)
    raise KeyboardInterrupt


def _warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning to a user, of whatever kind, as a line; one to a programmer also says where."""
    where = "" if issubclass(category, UserWarning) else f"{filename}:{lineno}: {category.__name__}: "
    return f"landbridge: warning: {where}{message}\n"


def _without_nan(figures: Any) -> Any:
    """Figures with null for what is no number: JSON knows none."""
    if isinstance(figures, Mapping):
        return {name: _without_nan(value) for name, value in figures.items()}
    if isinstance(figures, (list, tuple)):
        return [_without_nan(value) for value in figures]
    return None if isinstance(figures, float) and not math.isfinite(figures) else figures


def _function(name: str, args: list[str]) -> Callable[..., Mapping[str, Any] | None]:
    """The function of a command; for --help, what its module's `helped` returns, if it has one."""
    place, _, attribute = COMMANDS[name][0].partition(":")
    module = importlib.import_module(place)
    found: Callable[..., Mapping[str, Any] | None] = getattr(module, attribute)
    if {"-h", "--help"} & {*args} and hasattr(module, "helped"):
        found = module.helped(args)
    _prepare_help(found)
    return found


def _prepare_help(function: Callable[..., Any]) -> None:
    """Call positional arguments by their names, and join the lines of descriptions and examples, which tyro keeps."""
    body, *arguments = re.split(r"(?=\n    Args:)", function.__doc__ or "", maxsplit=1)
    function.__doc__ = re.sub(r"(?<=\S)\n +(?=\S)", " ", body) + re.sub(r"\n {12}(?=\S)", " ", "".join(arguments))
    hints = get_type_hints(function, include_extras=True)
    for name, parameter in signature(function).parameters.items():
        hint = hints[name]
        kinds = {get_origin(one) for one in (hint, *get_args(hint))}
        if parameter.kind is parameter.POSITIONAL_ONLY and Literal not in kinds:  # which shows its choices
            named = tyro.conf.arg(metavar=name.upper())
            several = tyro.conf.arg(metavar=f"{name.upper()} ...", help_behavior_hint="")
            hints[name] = Annotated[hint, several if tuple in kinds else named]
    function.__annotations__ = hints


def _environment(error: OSError | ModuleNotFoundError | EOFError) -> InputError:
    """An InputError for trouble with the machine that no command foresaw; re-raises any other `error`."""
    if isinstance(error, EOFError):
        if str(error) != "EOF when reading a line":  # `input`'s words
            raise error
        return InputError("standard input", "has ended, and nobody has answered", "run it on a terminal")
    if isinstance(error, ModuleNotFoundError):
        if not error.name or error.name.split(".")[0] == "landbridge":
            raise error
        remedy = "`landbridge doctor` says which extra has it"
        return InputError("landbridge", f"python package {error.name!r} is not installed", remedy)
    if error.strerror is None:
        raise error
    where = error.filename2 or error.filename or "a file"  # of a rename the second is where it should go
    return InputError(str(where), error.strerror, REMEDIES.get(error.errno or 0, "check the path and who may use it"))


def _help_with(args: list[str]) -> int:
    """What there is of a group of commands, such as `servo`, or what is like the name of no command."""
    if (group := [name for name in COMMANDS if name.split()[0] == args[0]]) and args[1:] in ([], ["-h"], ["--help"]):
        _print_help(group)
        return 0 if args[1:] else INPUT_ERROR
    name = " ".join(args[: 2 if group else 1])
    near = get_close_matches(name, COMMANDS) or group
    remedy = f"did you mean {', '.join(near)}?" if near else f"known: {', '.join(COMMANDS)}"
    print(f"landbridge: no command {name!r}; {remedy}", file=sys.stderr)
    return INPUT_ERROR


def _print_help(names: Iterable[str]) -> None:
    table = Table(box=None, show_header=False, padding=(0, 2))
    for name in names:
        table.add_row(f"[bold]{name}", COMMANDS[name][1])
    console = Console()
    console.print(f"landbridge {__version__}: carry a policy from simulator logs to a physical robot\n")
    console.print("usage: landbridge COMMAND [--help] [--json] ...\n")
    console.print(table)


def _tables(figures: Mapping[str, Any]) -> Iterator[Table]:
    """Scalars as one two-column table, then each list of rows as a table of its own."""
    scalars = Table("", Column("", overflow="fold"), box=None, show_header=False, padding=(0, 2, 0, 0))
    rows = {k: v for k, v in figures.items() if isinstance(v, list) and v and isinstance(v[0], Mapping)}
    for key, text in _texts(figures):
        if key not in rows and figures[key] != []:
            scalars.add_row(key, text)
    if scalars.row_count:
        yield scalars
    for values in rows.values():
        columns = (Column(name, overflow="fold") for name, _ in _texts(values[0]))
        table = Table(*columns, box=None, padding=(0, 2, 0, 0), header_style="bold")
        for value in values:
            table.add_row(*(text for _, text in _texts(value)))
        yield table


def _texts(figures: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Names and figures as people write them: `x` beside its bounds `x_low` and `x_high` is `x (low .. high)`."""
    bounds = {
        name: (f"{name}_low", f"{name}_high") for name in figures if {f"{name}_low", f"{name}_high"} <= {*figures}
    }
    told = {bound for both in bounds.values() for bound in both}
    for name, value in figures.items():
        if name in bounds and value is not None:
            low, high = (_text(figures[bound]) for bound in bounds[name])
            yield name, f"{_text(value)} ({low} .. {high})"
        elif name not in told:
            yield name, _text(value)


def _text(value: Any) -> str:
    """A figure as people write it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(inner)}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        if all(isinstance(each, str | bool) for each in value):  # of many episodes, say
            runs = [(text, len([*alike])) for text, alike in itertools.groupby(map(_text, value))]
            return ", ".join(text if times == 1 else f"{times} x {text}" for text, times in runs)
        return ", ".join(map(_text, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
