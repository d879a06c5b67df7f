"""A log as a Rerun recording, read back by Rerun's own reader."""

from __future__ import annotations

import resource
import sys
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from landbridge.bag import BagReader
from landbridge.cli import main
from landbridge.robot import load_robot
from landbridge_nodes.rrd import ARRAYS, SIGNALS, STATES, Series, encode
from landbridge_nodes.rrd import rerun as to_rerun

LOG = Path(__file__).parent / "data" / "replay.mcap"
TOPICS = (*SIGNALS, *ARRAYS, *STATES)


@pytest.fixture(scope="module")
def rr() -> Any:
    return pytest.importorskip("rerun", reason="extra [rerun] is not installed: pip install 'landbridge[rerun]'")


def columns(path: Path) -> dict[str, dict[str, list[Any]]]:
    """Values by component of every entity that has a time, in its order, by Rerun's reader."""
    from rerun.chunk import RrdReader

    found: dict[str, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for chunk in RrdReader(path).stream():
        if not chunk.is_static:
            batch = chunk.to_record_batch()
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                values = column.cast("int64") if name == "measured" else column
                found[chunk.entity_path][name] += values.to_pylist()
    return found


def read_series() -> Series:
    series = Series()
    for message in BagReader(LOG).messages(TOPICS):
        series.add(*message)
    return series


def test_a_log_is_taken_apart_by_name() -> None:
    series = read_series()
    stamps, written = series.numbers["/guard/timing/written_ms"]
    assert len(stamps) == len(written) > 80
    assert {"/joint_states/pendulum/velocity", "/policy/command/arm/effort", "/policy/action/inference_end_ms"} <= set(
        series.numbers
    )
    assert {"ok", "position_limit", "not_active"} <= set(series.states["/guard/verdict"][1])
    _, states = series.states["/safety/state"]
    assert "active" in [state.lower() for state in states]
    assert all(a != b for a, b in pairwise(states))  # changes only


def test_without_the_library_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    assert main(["rerun", str(LOG), "--out", str(tmp_path / "x.rrd")]) == 2
    assert "rerun: is not installed. pip install 'landbridge[rerun]'" in capsys.readouterr().err


def test_the_file_holds_every_row_of_the_log(rr: Any, tmp_path: Path) -> None:
    figures, series = to_rerun(LOG, tmp_path / "x.rrd"), read_series()
    assert [path.name for path in tmp_path.iterdir()] == ["x.rrd"]
    found = columns(tmp_path / "x.rrd")
    for entity, (stamps, values) in series.numbers.items():
        assert found[entity]["measured"] == stamps
        assert [value for (value,) in found[entity]["Scalars:scalars"]] == values
    for entity, (stamps, states) in series.states.items():
        assert found[entity]["measured"] == stamps
        assert [state for (state,) in found[entity]["StateChange:state"]] == states
    assert figures["rows"] == sum(len(entity["measured"]) for entity in found.values())


def test_the_arm_turns_as_it_was_measured(rr: Any, tmp_path: Path) -> None:
    """About z, 0.21 m above the base, by hand: the quaternion of an angle q is (0, 0, sin q/2, cos q/2)."""
    to_rerun(LOG, tmp_path / "x.rrd")
    moved = columns(tmp_path / "x.rrd")["/motion/arm"]
    _, angles = read_series().numbers["/joint_states/arm/position"]
    half = np.array(angles) / 2
    expected = np.stack([0 * half, 0 * half, np.sin(half), np.cos(half)], -1)
    np.testing.assert_allclose([q for (q,) in moved["Transform3D:quaternion"]], expected, atol=1e-6)
    np.testing.assert_allclose([t for (t,) in moved["Transform3D:translation"]], [[0, 0, 0.21]] * len(half), atol=1e-6)
    assert moved["Transform3D:parent_frame"][0] == ["base"]
    assert moved["Transform3D:child_frame"][0] == ["arm_link"]


def test_a_floating_base_turns_with_its_imu(rr: Any, tmp_path: Path) -> None:
    robot, series = load_robot("quadruped"), Series()
    for name in robot.spec.joint_names:
        series.numbers[f"/joint_states/{name}/position"] = [7], [0.1]
    series.turns = [7, 9], [[0.0, 0.0, 0.6, 0.8], [0.6, 0.0, 0.0, 0.8]]
    (tmp_path / "x.rrd").write_bytes(encode(rr, series, robot, "turns")[0])
    found = columns(tmp_path / "x.rrd")
    assert found["/motion/base"]["measured"] == [7, 9]
    np.testing.assert_allclose(
        [q for (q,) in found["/motion/base"]["Transform3D:quaternion"]], series.turns[1], atol=1e-6
    )
    assert {entity for entity in found if entity.startswith("/motion/")} == {
        "/motion/base",
        *(f"/motion/{name}" for name in robot.spec.joint_names),
    }


def test_a_disk_that_takes_no_more_is_named_and_nothing_is_left(
    rr: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "x.rrd"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        assert main(["rerun", str(LOG), "--out", str(out)]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "x.rrd: cannot be written: File too large. free space" in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == []  # nor is the folder that was made for it


def test_nothing_is_overwritten_and_no_bag_is_refused(
    rr: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.rrd").write_text("mine")
    assert main(["rerun", str(LOG), "--out", str(tmp_path / "x.rrd")]) == 2
    assert "already exists" in capsys.readouterr().err
    assert main(["rerun", str(tmp_path), "--out", str(tmp_path / "y.rrd")]) == 2
    assert "holds 0 .mcap files" in capsys.readouterr().err
    assert not (tmp_path / "y.rrd").exists()


def test_a_robot_that_does_not_ship_is_asked_for_by_its_folder(
    rr: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, folder = ["rerun", str(LOG), "--out", str(tmp_path / "x.rrd")], str(load_robot("furuta").folder)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("landbridge.robot.ROBOTS", tmp_path)  # where none ships
        assert main(asked) == 2
        assert "'furuta', which does not ship. add --robot FOLDER, the one of furuta's" in capsys.readouterr().err
        assert main([*asked, "--robot", folder]) == 0
