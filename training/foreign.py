"""`landbridge import`: a policy trained elsewhere, exported as ONNX, becomes a verified bundle.

The names are those that the exporters of rsl_rl (5.5, `models/rnn_model.py`) and Isaac Lab give: `obs` -> `actions`,
and for a recurrent policy `h_in`, `c_in` -> `h_out`, `c_out`. Any NAME_in with a NAME_out of its shape is a state.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from landbridge.bundle import npz, write_bundle
from landbridge.episode import Episode
from landbridge.errors import InputError
from landbridge.files import require_new
from landbridge.manifest import IMPORTED, Manifest
from landbridge.observation import Observer
from landbridge.provenance import commit, now
from landbridge.robot import Robot, load_robot
from landbridge.simulation.behaviour import Behaviour
from landbridge.simulation.plant import opened
from landbridge.simulation.rollout import lockstep
from landbridge.simulation.scenario import Scenario, load_scenario
from landbridge.spec import require_at_least
from landbridge.task import load_task
from landbridge.training.dataset import Transitions
from landbridge.training.export import TOLERANCE
from landbridge.training.monitoring import describe
from landbridge.training.onnx_graph import beyond_tensorrt
from landbridge.training.policy import graph_policy

SEED = 40_000
SEQUENCES, TICKS = 16, 64  # golden vectors at most: so many sequences of so many control ticks
REMEDY = "export it as rsl_rl does: obs (1, n) -> actions (1, m), a state NAME_in -> NAME_out, all float32 and fixed"

Shapes = Mapping[str, tuple[int, ...]]


def import_policy(policy: Path, /, robot: str, out: Path, scenario: str = "none", episodes: int = 8) -> dict[str, Any]:
    """Turn an ONNX policy that was trained elsewhere, feed-forward or recurrent, into a bundle.

    It must read the observation that `landbridge inspect ROBOT` lists, in that order and with those scales, and answer
    actions in [-1, 1] for the robot's `action.scale`: nothing in an ONNX file can tell. It is driven in the simulator
    first, which gives the golden vectors and shows whether it can: `success`, and `clipped`, the share of its actions
    beyond [-1, 1].

    Example: landbridge import policy.onnx --robot furuta --out policy.bundle

    Args:
        policy: ONNX file with inputs `obs`, `h_in`, `c_in` and outputs `actions`, `h_out`, `c_out` (or no state).
        robot: Name of a robot, or a folder with robot.yaml.
        out: Bundle to write: a folder, or one file if it ends in .zip.
        scenario: Rung of the robot's severity ladder to drive it on, in MuJoCo.
        episodes: Of that drive.
    """
    require_new(out)
    require_at_least("--episodes", episodes, 1)
    machine = load_robot(robot)
    rung, task = load_scenario(machine, scenario), load_task(machine)
    model, state = read_foreign(policy, machine)
    behaviour = graph_policy(policy, model, state)
    driven = drive(machine, rung, behaviour, episodes)
    obs, action = _golden(policy, behaviour, np.concatenate([e.obs for e in driven]))
    scores = {
        f"success on {scenario}": float(np.mean([task.success(e.obs) for e in driven])),
        f"return on {scenario}": float(np.mean([e.rewards.sum() for e in driven])),
    }
    files = {
        "policy.onnx": model,
        "golden.npz": npz(obs=obs, action=np.clip(action, -1, 1)),
        "envelope.npz": npz(**describe({"source": Transitions.of_episodes(driven)})),
    }
    bundle = write_bundle(out, _manifest(policy, machine, state, scores), machine.spec, files)
    return {
        "bundle": str(out),
        "digest": bundle.digest,
        "state": ", ".join(f"{name} {list(shape)}" for name, shape in state.items()) or "none: feed-forward",
        "golden_rows": obs[..., 0].size,
        **scores,
        "clipped": float((np.abs(action) > 1).mean()),
        "tensorrt": ", ".join(beyond_tensorrt(model)) or "reads every operator of the policy",
    }


def read_foreign(path: Path, robot: Robot) -> tuple[bytes, dict[str, tuple[int, ...]]]:
    """An ONNX file with the output `actions` called `action`, weights inside, and the shapes of its state by name.

    Raises:
        InputError: It is no ONNX file, its observation or action does not fit the robot, or a state has no partner.
    """
    if not path.is_file():
        raise InputError(path, "no such file", "name the ONNX file that the trainer exported")
    try:
        model = onnx.load(path)  # with the weights that torch's exporter puts beside it, in path.data
        _rename_output(model.graph, "actions", "action")
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # protobuf, onnx and the file system share no other base
        raise InputError(path, f"not an ONNX file: {' '.join(str(error).split()):.200}", REMEDY) from error
    constants = {value.name for value in model.graph.initializer}  # which old exporters list among the inputs
    inputs = _shapes(path, [value for value in model.graph.input if value.name not in constants])
    outputs = _shapes(path, model.graph.output)
    columns, joints = Observer(robot.spec).names, robot.spec.actuated
    for kind, found, name, wanted in (("input", inputs, "obs", columns), ("output", outputs, "action", joints)):
        if found.get(name) != (1, len(wanted)):
            problem = f"{kind} {name} is {found.get(name)}, {robot.spec.name} has {(1, len(wanted))}"
            raise InputError(path, problem, f"see `landbridge inspect {robot.spec.name}`, and {REMEDY}")
    return model.SerializeToString(), _paired(path, inputs, outputs)


def _rename_output(graph: Any, old: str, new: str) -> None:
    for value in graph.output:
        if value.name == old:
            graph.node.append(onnx.helper.make_node("Identity", [old], [new]))
            value.name = new


def drive(robot: Robot, rung: Scenario, behaviour: Behaviour, episodes: int) -> list[Episode]:
    """Episodes of a policy in MuJoCo."""
    streams = np.random.SeedSequence(SEED).spawn(episodes + 2)
    *noises, start, drawn = (np.random.default_rng(stream) for stream in streams)
    with opened(robot, "mujoco", [rung] * episodes, noises) as plants:
        return lockstep(plants, load_task(robot), behaviour(episodes, drawn), start)


def _golden(
    path: Path, behaviour: Behaviour, obs: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Sequences (S, T, n) from all over the observations (N, n) of episodes, and the answers (S, T, m), unbounded."""
    ticks = min(TICKS, len(obs))
    count = min(SEQUENCES, len(obs) // ticks)
    starts = np.linspace(0, len(obs) - ticks, count).astype(int)
    sequences = obs[starts[:, None] + np.arange(ticks)]
    first, second = behaviour(count, np.random.default_rng(0)), behaviour(count, np.random.default_rng(0))
    action, again = (
        np.stack([policy(rows) for rows in sequences.swapaxes(0, 1)], axis=1).astype(np.float32)
        for policy in (first, second)
    )
    if not np.array_equal(action, again, equal_nan=True):
        raise InputError(path, "answers the same observations in two ways", "export the policy's mean, not its samples")
    if not np.isfinite(action).all():
        raise InputError(path, "answers NaN or Inf to observations of the simulator", "do not use it")
    return sequences, action


def _manifest(path: Path, robot: Robot, state: dict[str, tuple[int, ...]], scores: dict[str, float]) -> Manifest:
    task, size = load_task(robot), Observer(robot.spec).size
    versions = {name: importlib.metadata.version(name) for name in ("landbridge", "onnx", "onnxruntime")}
    return Manifest.of(
        robot.spec,
        task=task.name,
        task_hash=task.digest(),
        agent=IMPORTED,
        alignment="none",
        dataset_hashes={},
        config={},
        obs_mean=(0.0,) * size,
        obs_std=(1.0,) * size,
        golden_tolerance=TOLERANCE,
        scores=scores,
        provenance={"created": now(), "commit": commit(), "imported": path.name, **versions},
        state=state,
    )


def _shapes(path: Path, values: Iterable[Any]) -> dict[str, tuple[int, ...]]:
    """Shapes of the graph's inputs or outputs by name; raises InputError for one that is not float32 or not fixed."""
    shapes = {}
    for value in values:
        tensor = value.type.tensor_type
        sizes = tuple(d.dim_value for d in tensor.shape.dim)
        if tensor.elem_type != onnx.TensorProto.FLOAT or 0 in sizes:
            shown = [d.dim_param or d.dim_value for d in tensor.shape.dim]
            kind = onnx.TensorProto.DataType.Name(tensor.elem_type)
            raise InputError(path, f"{value.name} is {kind} {shown}", REMEDY)
        shapes[value.name] = sizes
    return shapes


def _paired(path: Path, inputs: Shapes, outputs: Shapes) -> dict[str, tuple[int, ...]]:
    """Shape of each state by its name; raises InputError for an input or output that belongs to none."""
    state = {name.removesuffix("_in"): shape for name, shape in inputs.items() if name != "obs"}
    wanted = {f"{name}_out": shape for name, shape in state.items()}
    for name, shape in inputs.items():
        partner = name.removesuffix("_in") + "_out"
        if name != "obs" and (not name.endswith("_in") or outputs.get(partner) != shape):
            raise InputError(path, f"input {name} {shape} has no output {partner} {shape}; got {dict(outputs)}", REMEDY)
    if extra := sorted(outputs.keys() - wanted.keys() - {"action"}):
        raise InputError(path, f"outputs {extra} belong to no input; got {dict(inputs)}", REMEDY)
    return state
