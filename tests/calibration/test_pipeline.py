"""`landbridge calibrate all`, as a user calls it: from a recording of a twin to parameters, MJCF and page."""

from __future__ import annotations

import json
from pathlib import Path

import mujoco
import numpy as np
import pytest

from landbridge.calibration import identify
from landbridge.calibration.identify import doubts
from landbridge.calibration.pipeline import LEFT_OUT
from landbridge.cli import main
from landbridge.robot import load_robot
from landbridge.simulation.calibrated import read_calibration
from landbridge.simulation.parameters import to_values
from landbridge.simulation.scenario import load_scenario

TWIN = ("--engine", "bullet", "--scenario", "severe", "--domain", "target", "--mix", "excite", "1")


@pytest.mark.parametrize(("name", "seconds"), [("furuta", 20), ("quadruped", 8)])
def test_a_recording_becomes_parameters_a_model_and_a_page(
    name: str, seconds: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one doubt more than there is, which is to be told once."""
    monkeypatch.setattr(identify, "doubts", lambda *fit: [*doubts(*fit), "something is odd"])
    robot, data, out = load_robot(name), str(tmp_path / "target"), tmp_path / "calibration"
    steps = str(round(seconds * robot.spec.control_rate_hz))
    assert main(["collect", "--robot", name, "--out", data, "--steps", steps, *TWIN]) == 0
    capsys.readouterr()
    assert main(["calibrate", "all", data, "--robot", name, "--out", str(out), "--json"]) == 0
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert told["doubts"] == ["something is odd"]
    assert (said.out + said.err).count("something is odd") == 1
    with pytest.warns(UserWarning, match="doubtful: something is odd"):
        found = read_calibration(out / "calibration.yaml", robot)
    truth = to_values(robot, load_scenario(robot, "severe"))
    held = [row["parameter"] for row in told["parameters"] if row["low"] <= truth[row["parameter"]] <= row["high"]]
    assert len(held) >= len(found.estimates) - 1  # at 95 %
    before, after = (np.array([*error.joint_pos.values()]) for error in (found.nominal_error, found.calibrated_error))
    assert np.median(after / before) < 0.3
    if robot.spec.base == "floating":
        assert told["left_out"] == LEFT_OUT
    else:
        assert told["encoders"]
        delays = {row["joint"]: row for row in told["delays"]}
        assert delays["arm"]["low_ms"] <= truth["latency_ms"] <= delays["arm"]["high_ms"]
    assert mujoco.MjModel.from_xml_path(str(out / f"{name}.calibrated.xml")).nu == len(robot.spec.actuated)
    page = (out / "calibration.html").read_text()
    assert f"Calibration of {name}" in page
    assert "something is odd" in page
