"""Fixtures shared by every area."""

from __future__ import annotations

import itertools
import os
import re
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import settings
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from untrained import write_untrained
from xdist.scheduler import LoadScopeScheduling

from landbridge.observation import Observer
from landbridge.robot import Robot, load_robot
from landbridge.simulation.calibrated import Calibration, Error, Estimate
from landbridge_nodes.transport import stay_on_this_machine

os.environ.setdefault("OMP_NUM_THREADS", "1")

from . import stalls
from .ssh import target as target

GUIDE = ("swing.urdf", "robot.yaml", "task.py", "behaviour.py", "behaviour.yaml", "scenarios.yaml")
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it, and tests send it
REPOSITORY = Path(__file__).resolve().parents[1]

settings.register_profile("suite", derandomize=True, deadline=None)  # the same examples in every run
settings.register_profile("explore", max_examples=2000, deadline=None)  # `make explore`: new ones
settings.load_profile("suite")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """A file goes to one worker, as with `--dist loadfile`; those in real time all to one."""
    return Scheduling(config, log)


# Files of few tests that take long, longest first: xdist would begin them last, and other workers would wait.
FIRST = (
    "tests/calibration/test_pipeline.py",
    "tests/deploy/test_push.py",
    "tests/training/test_sweep.py",
    "tests/calibration/test_friction.py",
    "tests/training/test_scratch.py",
    "tests/training/test_alignments.py",
    "tests/training/test_export.py",
    "tests/calibration/test_identify.py",
    "tests/deploy/test_faults.py",
    "tests/training/test_bundle_contents.py",
    "tests/training/test_crash.py",
    "tests/calibration/test_backlash.py",
    "tests/training/test_monitoring.py",
    "tests/calibration/test_delay.py",
    "tests/training/test_ranks.py",
)


class Scheduling(LoadScopeScheduling):
    def schedule(self) -> None:
        super().schedule()
        for file in reversed(FIRST):
            if file in self.workqueue:
                self.workqueue.move_to_end(file, last=False)

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        return "real time" if stalls.in_real_time(REPOSITORY / file) else file


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Tests in real time: see `stalls`."""
    if not stalls.in_real_time(item.path):
        return None
    stalls.run(item, nextitem)
    return True


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which tests were repeated."""
    for report in itertools.chain(*terminalreporter.stats.values()):
        for line in stalls.repetitions(report):
            terminalreporter.write_line(f"REPEATED {line}")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout the tests run in."""
    return REPOSITORY


@pytest.fixture(autouse=True)
def _data_roots_in_a_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes a user's datasets or ROS logs."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path / "ros_log"))


@pytest.fixture(scope="session")
def new_ros_domain() -> Callable[[pytest.MonkeyPatch], None]:
    """Puts what is started next into a ROS domain of its own, on this machine only."""

    def enter(patch: pytest.MonkeyPatch) -> None:
        domain = 1 + 25 * (_WORKER % 4) + next(_DOMAINS) % 25  # above 101 DDS would use the ports of Linux' clients
        patch.setenv("ROS_DOMAIN_ID", str(domain))
        environment = {**os.environ, "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
        stay_on_this_machine(environment)
        for name, value in environment.items() - os.environ.items():
            patch.setenv(name, value)

    return enter


@pytest.fixture
def ros_domain(new_ros_domain: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """A ROS domain of this test's own."""
    new_ros_domain(monkeypatch)


_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw3").removeprefix("gw"))  # none share a domain
_DOMAINS = itertools.count(os.getpid())


@pytest.fixture
def full_disk() -> Callable[[], AbstractContextManager[None]]:
    """As a context: the kernel refuses to make any file longer than 1000 bytes."""

    @contextmanager
    def full() -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return full


@pytest.fixture(scope="session")
def brief_furuta(tmp_path_factory: pytest.TempPathFactory) -> Robot:
    """The furuta with episodes of 2 s, for who waits for whole ones."""
    folder = shutil.copytree(load_robot("furuta").folder, tmp_path_factory.mktemp("brief") / "furuta")
    text = (folder / "task.py").read_text()
    assert text.count("episode_seconds = 6.0") == 1
    (folder / "task.py").write_text(text.replace("episode_seconds = 6.0", "episode_seconds = 2.0"))
    return load_robot(folder)


@pytest.fixture(scope="session")
def linear_bundle() -> Callable[..., Path]:
    """`_linear_bundle`: writes a bundle whose policy is tanh(obs @ weight)."""
    return _linear_bundle


@pytest.fixture(scope="session")
def linear_graph() -> Callable[..., bytes]:
    """`_linear_graph`: the ONNX graph of such a policy."""
    return _linear_graph


@pytest.fixture(scope="session")
def calibration() -> Callable[..., Calibration]:
    """`_calibration`: a calibration by hand."""
    return _calibration


STATE = {"h": (1, 1), "c": (1, 1)}


@pytest.fixture(scope="session")
def recurrent_bundle() -> Callable[..., Path]:
    """`_recurrent_bundle`: writes a bundle whose policy is tanh of a running mean of obs @ weight."""
    return _recurrent_bundle


@pytest.fixture(scope="session")
def recurrent_graph() -> Callable[..., bytes]:
    """`_recurrent_graph`: the ONNX graph of such a policy."""
    return _recurrent_graph


def _calibration(**values: float) -> Calibration:
    """Of the furuta; it says these values of these parameters."""
    robot, unknown = load_robot("furuta"), Error(joint_pos={}, joint_vel={})
    return Calibration(
        robot="furuta",
        robot_hash=robot.spec.digest(),
        urdf_hash=robot.urdf_digest(),
        dataset="",
        dataset_hash="",
        known=(),
        estimates={name: Estimate(value=v, low=v, high=v, identifiable=True) for name, v in values.items()},
        covariance=tuple((0.0,) * len(values) for _ in values),
        undetermined=(),
        inflation=1.0,
        joint_pos_noise=0.001,
        joint_vel_noise=0.03,
        windows=0,
        horizon_s=1.0,
        nominal_error=unknown,
        calibrated_error=unknown,
        commit="",
        created="",
    )


def _recurrent_bundle(path: Path, weight: NDArray[np.float32], graph: bytes | None = None) -> Path:
    """`weight` (n, 1); `graph` replaces the policy's own."""
    spec = load_robot("furuta").spec
    obs = np.random.default_rng(0).normal(size=(3, 5, len(weight))).astype(np.float32)
    means = np.cumsum(obs @ weight, axis=1) / np.arange(1, 6)[:, None]
    model = _recurrent_graph(weight) if graph is None else graph
    golden = obs, np.tanh(means).astype(np.float32)
    write_untrained(path, spec, model, golden, agent="test", task_hash="0", state=STATE)
    return path


def _recurrent_graph(weight: NDArray[np.float32], rename: dict[str, str] | None = None) -> bytes:
    """h_out = h_in + obs @ weight, c_out = c_in + 1, action = tanh(h_out / c_out); `rename` its ends."""
    named = rename or {}
    ends = {name: (1, len(weight)) if name == "obs" else (1, 1) for name in ("obs", "h_in", "c_in")}
    outputs = dict.fromkeys(("action", "h_out", "c_out"), (1, 1))
    nodes = [
        ("MatMul", ["obs", "w"], "x"),
        ("Add", ["h_in", "x"], "h_out"),
        ("Add", ["c_in", "one"], "c_out"),
        ("Div", ["h_out", "c_out"], "mean"),
        ("Tanh", ["mean"], "action"),
    ]
    made = [
        helper.make_node(op, [named.get(name, name) for name in inputs], [named.get(output, output)])
        for op, inputs, output in nodes
    ]
    infos = [
        [helper.make_tensor_value_info(named.get(n, n), TensorProto.FLOAT, shape) for n, shape in of.items()]
        for of in (ends, outputs)
    ]
    constants = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.ones((1, 1), np.float32), "one")]
    graph = helper.make_graph(made, "policy", *infos, constants)
    return bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )


def _linear_bundle(
    path: Path,
    weight: NDArray[np.float32],
    graph: bytes | None = None,
    golden_shift: float = 0.0,
    robot: str | Path = "furuta",
) -> Path:
    """`graph` replaces the policy's own; `golden_shift` is added to the golden actions."""
    spec = load_robot(robot).spec
    names = Observer(spec).names
    obs = np.random.default_rng(0).normal(size=(16, len(names))).astype(np.float32)
    model = _linear_graph(weight) if graph is None else graph
    golden = obs, np.tanh(obs @ weight) + np.float32(golden_shift)
    write_untrained(path, spec, model, golden, agent="test", task_hash="0")
    return path


def _linear_graph(weight: NDArray[np.float32], output: str = "action", activation: str = "Tanh") -> bytes:
    """The graph of action = tanh(obs @ weight), or of another operator."""
    rows, columns = weight.shape
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("MatMul", ["obs", "w"], ["h"]), helper.make_node(activation, ["h"], [output])],
            "policy",
            [helper.make_tensor_value_info("obs", TensorProto.FLOAT, [1, rows])],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, [1, columns])],
            [numpy_helper.from_array(weight, "w")],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


@pytest.fixture
def guide(tmp_path: Path) -> Path:
    """The robot folder that docs/ROBOT.md has a person write."""
    folder = tmp_path / "swing"
    folder.mkdir()
    blocks = re.findall(
        r"^```\w+\n(.*?)^```$", (REPOSITORY / "docs" / "ROBOT.md").read_text(), re.MULTILINE | re.DOTALL
    )
    for name, text in zip(GUIDE, blocks, strict=True):
        (folder / name).write_text(text)
    return folder
