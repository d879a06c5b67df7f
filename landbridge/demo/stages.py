"""Running `landbridge` commands as the stages of a demo: one process each, timed, their figures read as JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from landbridge.errors import InputError
from landbridge.training.log import last_step

POLL_SECONDS = 0.5
ENVIRONMENT = {"OMP_NUM_THREADS": "1"}  # one core a process: arms train side by side

console = Console(stderr=True, highlight=False)


@dataclass
class Stages:
    """The stages run so far; each row names what ran, how long it took and what it wrote."""

    folder: Path
    rows: list[dict[str, Any]] = field(default_factory=list)

    def run(self, name: str, output: str, *command: str) -> dict[str, Any]:
        """Run `landbridge COMMAND --json` to its end, its progress on the terminal; returns its figures.

        Raises:
            InputError: The command failed; its own message is on the terminal.
        """
        console.rule(f"[bold]{name}", align="left")
        began = time.monotonic()
        with tempfile.TemporaryFile("w+") as out:
            process = subprocess.Popen(_argv(command), stdout=out, env=os.environ | ENVIRONMENT)
            try:
                code = process.wait()
            finally:
                _end(process)
            if code != 0:
                raise InputError(f"landbridge {command[0]}", f"ended with code {code}", "see its message above")
            out.seek(0)
            figures: dict[str, Any] = json.load(out)
        self._finish(name, began, output)
        return figures

    def train(self, name: str, commands: Mapping[str, tuple[str, ...]], steps: int) -> dict[str, Any]:
        """Run training commands side by side, one a core, with a bar each; returns figures by arm.

        The run folder of arm A is `runs/A`, its log `runs/A.log`.
        """
        console.rule(f"[bold]{name}", align="left")
        began = time.monotonic()
        runs = self.folder / "runs"
        runs.mkdir(exist_ok=True)
        waiting, active = list(commands), dict[str, subprocess.Popen[str]]()
        figures: dict[str, Any] = {}
        columns = (TextColumn("{task.description:>12}"), BarColumn(), TextColumn("{task.percentage:.0f} %"))
        with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
            bars = {arm: progress.add_task(arm, total=steps, start=False) for arm in commands}
            try:
                while waiting or active:
                    while waiting and len(active) < len(os.sched_getaffinity(0)):
                        arm = waiting.pop(0)
                        progress.start_task(bars[arm])
                        active[arm] = _start(commands[arm], runs / f"{arm}.json", runs / f"{arm}.log")
                    time.sleep(POLL_SECONDS)
                    for arm, process in list(active.items()):
                        progress.update(bars[arm], completed=last_step(runs / arm))
                        if process.poll() is not None:
                            del active[arm]
                            figures[arm] = _figures(process, runs / f"{arm}.json", runs / f"{arm}.log")
            finally:
                for process in active.values():
                    _end(process)
        self._finish(name, began, "runs/")
        return figures

    def _finish(self, name: str, began: float, output: str) -> None:
        seconds = time.monotonic() - began
        self.rows.append({"stage": name, "seconds": round(seconds, 1), "output": str(self.folder / output)})
        console.print(f"{name}: {seconds:.1f} s -> {self.folder / output}")


def _end(process: subprocess.Popen[Any]) -> None:
    """Let a command that is still running end in order."""
    if process.poll() is None:
        process.terminate()
        process.wait()


def _argv(command: tuple[str, ...]) -> list[str]:
    return [sys.executable, "-m", "landbridge", *command, "--json"]


def _start(command: tuple[str, ...], out: Path, log: Path) -> subprocess.Popen[str]:
    with out.open("w") as stdout, log.open("w") as stderr:
        return subprocess.Popen(_argv(command), stdout=stdout, stderr=stderr, text=True, env=os.environ | ENVIRONMENT)


def _figures(process: subprocess.Popen[str], out: Path, log: Path) -> dict[str, Any]:
    if process.returncode != 0:
        raise InputError(log, f"training ended with code {process.returncode}", "its last lines say why")
    figures: dict[str, Any] = json.loads(out.read_text())
    return figures
