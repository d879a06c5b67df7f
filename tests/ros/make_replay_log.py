"""Makes the committed bundle and log of test_replay.py: `PYTHONPATH=benchmarks python tests/ros/make_replay_log.py`.

Two seconds of the furuta's twin under a small random policy, from the real processes. Needed again when the robot, the
observation, the guard or the graph's topics change on purpose. Chunks are compressed afterwards.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
from mcap.reader import make_reader
from mcap.writer import CompressionType, Writer
from onnx import TensorProto, helper, numpy_helper
from untrained import write_untrained

from landbridge.observation import Observer
from landbridge.robot import load_robot
from landbridge_nodes.bringup import deploy
from landbridge_nodes.episodes import run_episodes

DATA = Path(__file__).parent / "data"
BUNDLE, LOG = DATA / "replay.zip", DATA / "replay.mcap"
HIDDEN = 8
SECONDS = 2.0


def main() -> None:
    """Write both files anew."""
    for path in (BUNDLE, LOG):
        path.unlink(missing_ok=True)
    write_random_bundle(BUNDLE)
    with tempfile.TemporaryDirectory() as scratch:
        bag = Path(scratch) / "bag"
        run_episodes(load_robot("furuta"), deploy("furuta", "none", 0, str(BUNDLE), str(bag)), seconds=SECONDS)
        compress(bag / "bag_0.mcap", LOG)


def write_random_bundle(path: Path) -> None:
    """tanh(tanh(obs W) V) with golden actions as onnxruntime computes them here, so that here they are exact."""
    spec = load_robot("furuta").spec
    names = Observer(spec).names
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=s).astype(np.float32) for s in ((len(names), HIDDEN), (HIDDEN, len(spec.actuated)))]
    nodes = [
        helper.make_node("MatMul", ["obs", "W"], ["a"]),
        helper.make_node("Tanh", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "V"], ["c"]),
        helper.make_node("Tanh", ["c"], ["action"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size])
        for name, size in (("obs", len(names)), ("action", len(spec.actuated)))
    ]
    constants = [numpy_helper.from_array(w, name) for w, name in zip(weights, "WV", strict=True)]
    graph = helper.make_graph(nodes, "policy", ends[:1], ends[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    obs = rng.normal(size=(16, len(names))).astype(np.float32)
    action = np.concatenate([session.run(["action"], {"obs": row[None]})[0] for row in obs])
    write_untrained(path, spec, model, (obs, action), agent="random")


def compress(source: Path, out: Path) -> None:
    """The same MCAP file with compressed chunks."""
    with source.open("rb") as stream, out.open("wb") as file:
        reader = make_reader(stream)
        writer = Writer(file, compression=CompressionType.ZSTD)
        writer.start(profile="ros2", library=reader.get_header().library)
        for record in reader.iter_metadata():
            writer.add_metadata(record.name, record.metadata)
        schemas: dict[int, int] = {}
        channels: dict[int, int] = {}
        for schema, channel, message in reader.iter_messages():
            if schema.id not in schemas:
                schemas[schema.id] = writer.register_schema(schema.name, schema.encoding, schema.data)
            if channel.id not in channels:
                channels[channel.id] = writer.register_channel(
                    channel.topic, channel.message_encoding, schemas[schema.id], channel.metadata
                )
            writer.add_message(channels[channel.id], message.log_time, message.data, message.publish_time)
        writer.finish()


if __name__ == "__main__":
    main()
