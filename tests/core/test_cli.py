from __future__ import annotations

import errno
import inspect
import io
import os
import re
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import NoReturn

import pytest

from landbridge import __version__, doctor
from landbridge.__main__ import main as begin
from landbridge.cli import COMMANDS, INTERRUPTED, _function, _without_nan, main
from landbridge.deploy.graph import ProviderFallbackWarning


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert all(re.search(rf"^\s+{name}\s", shown, re.MULTILINE) for name in COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


def test_ctrl_c_before_the_command_line_is_imported_leaves_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupting:
        def find_spec(self, name: str, *rest: object) -> NoReturn:
            raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "landbridge.cli")
    monkeypatch.setattr(sys, "meta_path", [Interrupting()])
    assert begin() == INTERRUPTED


def test_an_unknown_command_names_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fly"]) == 2
    assert "no command 'fly'; known: demo, collect" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "meant"), [("trian", "train"), ("servo scna /dev/ttyUSB0", "servo scan"), ("hil", "hil run")]
)
def test_a_slip_names_what_was_meant(typed: str, meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(typed.split()) == 2
    shown = "".join(capsys.readouterr())
    assert meant in shown
    assert "collect" not in shown


def test_a_group_of_commands_has_a_help_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["servo", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "servo scan" in shown
    assert "servo setup" in shown
    assert "hil run" not in shown


def test_a_question_that_nobody_answers_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A robot's command asks a person; in a service or a pipe there is none."""
    monkeypatch.setattr("landbridge.doctor.doctor", lambda: input("ready? "))
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert main(["doctor"]) == 2
    assert "nobody has answered. run it on a terminal" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_whatever_ends_a_command_lets_it_end_in_order(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGHUP is a terminal that was closed, or an ssh session that dropped, with a robot in motion."""
    done: list[str] = []

    def moving() -> None:
        try:
            signal.raise_signal(number)
            pytest.fail("it goes on")
        finally:
            done.append("torque off")

    monkeypatch.setattr("landbridge.doctor.doctor", moving)
    before = signal.signal(number, signal.SIG_DFL)  # the tests themselves may run under nohup
    try:
        assert main(["doctor"]) == 130
        assert done == ["torque off"]
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("further", [signal.SIGTERM, signal.SIGHUP])
def test_an_end_in_order_is_not_cut_short(further: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service is ended by SIGTERM and, as its terminal goes, by SIGHUP: the second finds a robot that parks."""
    done: list[str] = []

    def parking() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(further)
            done.append("parked")

    monkeypatch.setattr("landbridge.doctor.doctor", parking)
    assert main(["doctor"]) == 130
    assert done == ["parked"]


def test_a_reader_that_has_seen_enough_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `landbridge ... | head -1`: neither a traceback, nor Python's own message as it flushes at its end."""
    code = (
        "import os, sys; from landbridge import cli, doctor; "
        "doctor.doctor = lambda: print('x' * 100_000, flush=True); sys.exit(cli.main(['doctor']))"
    )
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_warning_to_a_user_is_one_line_without_code(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []

    def warned() -> None:
        for category in (UserWarning, ProviderFallbackWarning, DeprecationWarning):
            shown.append(warnings.formatwarning("few rows", category, "a.py", 7))

    monkeypatch.setattr("landbridge.doctor.doctor", warned)
    before = warnings.formatwarning
    assert main(["doctor"]) == 0
    told = "landbridge: warning: few rows\n"
    assert shown == [told, told, "landbridge: warning: a.py:7: DeprecationWarning: few rows\n"]
    assert warnings.formatwarning is before


def test_a_command_under_nohup_outlives_its_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("landbridge.doctor.doctor", lambda: signal.raise_signal(signal.SIGHUP))
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert main(["doctor"]) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_figures_are_not_cut_in_a_file(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"policy": "x" * 30, **{f"a_rather_long_column_{i}": 1 / 3 for i in range(4)}}]
    figures = {"share": {"random": 0.123456, "tuned": 1}, "advice": ["calibrate", "align"], "none": [], "rows": rows}
    monkeypatch.setattr("landbridge.doctor.doctor", lambda: figures)
    monkeypatch.delenv("COLUMNS", raising=False)
    assert main(["doctor"]) == 0
    share, advice, heads, values = capsys.readouterr().out.splitlines()
    assert share.split() == ["share", "random", "0.1235,", "tuned", "1"]
    assert advice.split() == ["advice", "calibrate,", "align"]
    assert heads.split() == list(rows[0])
    assert values.split() == ["x" * 30, *["0.3333"] * 4]


def test_an_estimate_stands_with_its_interval(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"policy": "a", "success": 0.5, "success_low": 0.251, "success_high": 0.75, "kept": 1}]
    told = {"gear": None, "gear_low": None, "gear_high": None, "low": 3, "rows": rows}
    monkeypatch.setattr("landbridge.doctor.doctor", lambda: told)
    assert main(["doctor"]) == 0
    lines = [re.split(r"  +", line.strip()) for line in capsys.readouterr().out.splitlines()]
    assert lines == [["gear", "None"], ["low", "3"], ["policy", "success", "kept"], ["a", "0.5 (0.251 .. 0.75)", "1"]]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/data/x"), "/data/x: Permission denied. check the path"),
        (OSError(errno.ENOSPC, "No space left on device"), "a file: No space left on device. free space"),
        (OSError(errno.ENOTDIR, "Not a directory", "b.partial", None, "b"), "b: Not a directory. check the path"),
        (ModuleNotFoundError("No module named 'rclpy'", name="rclpy"), "python package 'rclpy' is not installed"),
    ],
)
def test_what_the_machine_refuses_is_one_line(
    error: Exception, line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr("landbridge.doctor.doctor", fail)
    assert main(["doctor"]) == 2
    shown = capsys.readouterr().err
    assert line in shown and shown.count("\n") == 1


@pytest.mark.parametrize("error", [OSError("of our own making"), ModuleNotFoundError(name="landbridge.nowhere")])
def test_our_own_mistakes_keep_their_traceback(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr("landbridge.doctor.doctor", fail)
    with pytest.raises(type(error)):
        main(["doctor"])


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("exec sleep 60", "none: nvidia-smi does not answer in 0.2 s: its driver hangs"),
        ("echo 'NVIDIA-SMI has failed'; exit 9", "none: nvidia-smi names no GPU: NVIDIA-SMI has failed"),
        ("echo 'Orin, 540.4.0'", "Orin, 540.4.0"),
        ("echo 'Orin, 540.4.0'; echo 'H100, 550.1'", "Orin, 540.4.0; H100, 550.1"),
    ],
)
def test_the_doctor_of_a_broken_gpu(script: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr("landbridge.gpu.ANSWER_SECONDS", 0.2)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # its import fails, as that of a wheel for another CUDA does
    checks = {check["check"]: check for check in doctor.doctor()["checks"]}
    assert checks["gpu"]["found"] == found
    assert (checks["gpu"]["remedy"] == "") == found.startswith("Orin")
    assert checks["onnxruntime"]["found"].startswith("cannot be imported")


def test_the_doctor_of_two_ros_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    monkeypatch.setattr("landbridge.doctor._version", lambda package: "9.9.9")
    check = next(check for check in doctor.doctor()["checks"] if check["check"] == "ros 2")
    assert check["found"] == "sourced jazzy AND wheels 9.9.9"
    assert "never mix them" in check["remedy"]


def test_the_doctor_where_users_have_no_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    port = tmp_path / "ttyACM0"
    port.touch()
    monkeypatch.setattr("os.geteuid", lambda: 4_000_000)
    assert doctor._join_group(port).startswith("let user 4000000 into group ")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"landbridge {name}" in (inspect.getdoc(_function(name, [])) or "")
    with pytest.raises(SystemExit) as ended:
        main([*name.split(), "--help"])
    assert ended.value.code == 0
    assert "Example" in capsys.readouterr().out


def test_an_option_that_is_given_twice_is_refused_where_the_last_one_would_count(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["train", "--target", "a", "--out", "x", "--target=b"]) == 2
    assert "--target: is given twice" in capsys.readouterr().err


def test_what_is_no_number_is_null_in_json() -> None:
    figures = {"a": [1.0, float("nan")], "b": {"c": float("inf"), "d": "x", "e": 2}}
    assert _without_nan(figures) == {"a": [1.0, None], "b": {"c": None, "d": "x", "e": 2}}
