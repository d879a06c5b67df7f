from __future__ import annotations

import inspect
import re
import signal

import pytest

from landbridge import __version__
from landbridge.cli import COMMANDS, _function, main


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert all(re.search(rf"^\s+{name}\s", shown, re.MULTILINE) for name in COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


def test_an_unknown_command_names_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fly"]) == 2
    assert "no command 'fly'; known: demo, collect" in capsys.readouterr().err


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


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"landbridge {name}" in (inspect.getdoc(_function(name)) or "")
    with pytest.raises(SystemExit) as ended:
        main([*name.split(), "--help"])
    assert ended.value.code == 0
    assert "Example" in capsys.readouterr().out
