"""Starting the processes of a bring-up without `ros2 launch`, and never leaving one behind."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, TextIO

import yaml
from rich.console import Console
from typing_extensions import Self

from landbridge.errors import InputError
from landbridge_nodes.bringup import NodeSpec
from landbridge_nodes.process import PARK_SECONDS
from landbridge_nodes.transport import stay_on_this_machine

GRACE_SECONDS = PARK_SECONDS + 1  # from SIGTERM to SIGKILL: the robot is parked, the recorder completes its bag
BAD_INPUT = 2  # exit code of a node that refuses what it was given, before anything moves
LAST_WORDS_SECONDS = 1.0  # for what an ended process has said to be shown; longer only on a terminal that is held
ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def arguments(spec: NodeSpec, parameters_file: str) -> list[str]:
    """What follows the executable on the command line: the list that launch_ros' Node builds."""
    namespace = "/" + spec.namespace.strip("/")
    names = ["-r", f"__node:={spec.name}", "-r", f"__ns:={namespace}"]
    return ["--ros-args", "--enclave", spec.enclave, "--ros-args", *names, "--params-file", parameters_file]


def parameters_yaml(spec: NodeSpec) -> str:
    """The text of the parameters file, as launch_ros writes it."""
    node = f"{spec.namespace.rstrip('/')}/{spec.name}"
    return yaml.dump({node: {"ros__parameters": dict(spec.parameters)}}, default_flow_style=False)


class Processes:
    """The running processes of a bring-up, each in a group of its own; a context manager that ends them all.

    They are ended in reverse order of their start: the recorder, first in every bring-up, sees the last of the rest. A
    process whose starter dies without a word gets SIGTERM from the kernel. What they say goes to the terminal through
    pipes, as under `ros2 launch`: a terminal that is held (Ctrl-S) would hold whoever writes to it, in a control loop.
    """

    def __init__(self, specs: Sequence[NodeSpec], environment: dict[str, str] | None = None) -> None:
        self._specs, self._environment = specs, environment or {}
        self._started: dict[str, subprocess.Popen[bytes]] = {}
        self._words: list[threading.Thread] = []
        self._lost: dict[str, str] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="landbridge-")

    def __enter__(self) -> Self:
        try:
            for spec in self._specs:
                with _signals_held_back():
                    self._started[spec.name] = self._start(spec)
        except BaseException:
            self.end()
            raise
        for process in self._started.values():  # only now: a fork beside other threads is not safe
            passed = process.stdout, sys.stderr  # as it is now: a progress bar has words printed above it
            self._words.append(threading.Thread(target=_pass_on, args=passed, daemon=True))
            self._words[-1].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def pid(self, name: str) -> int:
        """Process id of the node `name`."""
        return self._started[name].pid

    def check(self) -> None:
        """Raise InputError if an essential process has ended; its own message is on the terminal.

        So does that of any other that refuses its input; else it is said there, now and once more at the end of all.
        """
        for spec in self._specs:
            name, code = spec.name, self._started[spec.name].poll()
            if code is None or name in self._lost:
                continue
            if spec.essential or code == BAD_INPUT:
                raise InputError(f"node {name}", f"ended with code {code}", "see its message above")
            self._lost[name] = f"node {name} ended with code {code}: the rest goes on without it"
            self._tell(self._lost[name])

    def end(self) -> None:
        """SIGTERM, then SIGKILL what is left after `GRACE_SECONDS`; says again what had ended before."""
        for process in reversed(self._started.values()):
            _signal(process, signal.SIGTERM)
            deadline = time.monotonic() + GRACE_SECONDS
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _signal(process, signal.SIGKILL)
                process.wait()
        for words in self._words:
            words.join(LAST_WORDS_SECONDS)
        self._folder.cleanup()
        for news in self._lost.values():
            self._tell(news)

    @staticmethod
    def _tell(news: str) -> None:
        Console(stderr=True, highlight=False).print(f"[bold red]{news}[/]", soft_wrap=True)

    def _start(self, spec: NodeSpec) -> subprocess.Popen[bytes]:
        file = Path(self._folder.name) / f"{spec.name}.yaml"
        file.write_text(parameters_yaml(spec))
        coloured = {"RCUTILS_COLORIZED_OUTPUT": "1"} if sys.stderr.isatty() else {}  # a pipe would turn that off
        environment = coloured | os.environ | {"OMP_NUM_THREADS": "1"} | self._environment
        stay_on_this_machine(environment)
        return subprocess.Popen(
            [sys.executable, "-m", f"{spec.package}.{spec.executable}", *arguments(spec, str(file))],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )


def _pass_on(words: IO[bytes], to: TextIO) -> None:
    """To our standard error, for standard output belongs to the figures of the command."""
    with words:
        for line in words:
            with suppress(OSError, ValueError):  # of a terminal that is gone; a pipe that nobody reads would fill
                to.write(line.decode(errors="replace"))


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Signals come afterwards: what their handlers raise while Python forks is dropped, and nobody would end.

    A mask would not do: it is one thread's, and the middleware's threads leave theirs to Python.
    """
    if threading.current_thread() is not threading.main_thread():  # handlers run in that one
        yield
        return
    held: list[int] = []
    handled = {number: handler for number in ENDS if callable(handler := signal.getsignal(number))}
    for number in handled:
        signal.signal(number, lambda number, _: held.append(number))
    try:
        yield
    finally:
        for number, handler in handled.items():
            signal.signal(number, handler)
        for came in held:
            signal.raise_signal(came)


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _signal(process: subprocess.Popen[Any], number: int) -> None:
    if process.poll() is None:
        os.killpg(process.pid, number)
