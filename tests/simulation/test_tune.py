"""`landbridge robot tune`: a behaviour's parameters in place, and what it refuses before it searches."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from landbridge.cli import INPUT_ERROR, main
from landbridge.robot import load_robot
from landbridge.simulation.behaviour import Tuned, read_behaviours
from landbridge.simulation.scenario import load_scenario
from landbridge.simulation.tune import replaced, search

ROBOT = load_robot("furuta")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A furuta of one's own."""
    return Path(shutil.copytree(ROBOT.folder, tmp_path / "furuta"))


def test_the_tuned_entry_is_replaced_and_says_what_made_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["robot", "tune", str(folder), "--behaviour", "random", "--generations", "2", "--episodes", "2"]
    monkeypatch.setattr("sys.argv", ["landbridge", *command])
    before = read_behaviours(folder / "behaviour.yaml").behaviours
    assert main(command) == 0
    after = read_behaviours(folder / "behaviour.yaml").behaviours
    assert after["random"].made_by.startswith(f"landbridge robot tune {folder} --behaviour random --generations 2")
    assert after["random"].parameters.keys() == before["random"].parameters.keys()
    assert {name: entry for name, entry in after.items() if name != "random"} == {
        name: entry for name, entry in before.items() if name != "random"
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--generations", "0"], "--generations: is 0. give 1 or more"),
        (["--episodes", "0"], "--episodes: is 0. give 1 or more"),
        (["--scenarios"], "--scenarios: is 0. give 1 or more"),
        (["--seed", "-1"], "--seed: is -1. give 0 or more"),
        (["--behaviour", "nobody"], "no behaviour 'nobody'. name one of random, tuned, excite"),
        (["--scenarios", "wild"], "no scenario 'wild'"),
    ],
)
def test_what_cannot_be_searched_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    before = (folder / "behaviour.yaml").read_bytes()
    assert main(["robot", "tune", str(folder), *options]) == INPUT_ERROR
    assert message in " ".join(capsys.readouterr().err.split())
    assert (folder / "behaviour.yaml").read_bytes() == before


def test_a_search_finds_better_parameters_than_it_begins_with() -> None:
    start = read_behaviours(ROBOT.folder / "behaviour.yaml")
    weak = {name: value / 3 for name, value in start.behaviours["tuned"].parameters.items()}
    start, rungs = replaced(start, "tuned", Tuned(made_by="", parameters=weak)), [load_scenario(ROBOT, "none")]
    before, after = (search(ROBOT, start, "tuned", rungs, "mujoco", n, 2, 0, ("tuned",))[1] for n in (0, 4))
    assert after > 10 * before
