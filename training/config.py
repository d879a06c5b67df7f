"""The configuration of one training run, dumped to its `config.json`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from landbridge.training.agents.iql import IQLConfig
from landbridge.training.alignments.tabb import TabbConfig
from landbridge.training.predictor import PredictorConfig

BLOCK = 256  # steps between two looks at the numbers: indices drawn, weights refreshed, metrics logged, NaN checked


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a run, besides the data.

    Attributes:
        agent: Offline RL agent.
        alignment: How source rows are weighted.
        steps: Gradient steps.
        seed: Of networks, batches and held-out rows.
        rows: Source rows and target rows per step (each, when both are used).
        reward_scale: Factor on every reward.
        compile: Compile the update with torch.compile: a slow start, then faster steps.
        device: `auto` takes CUDA when present.
        iql: Hyperparameters of the agent.
        tabb: Hyperparameters of the alignment.
    """

    agent: Literal["iql"] = "iql"
    alignment: Literal["none", "source_only", "target_only", "tabb"] = "tabb"
    steps: int = 12_000
    seed: int = 0
    rows: int = 256
    reward_scale: float = 0.1
    compile: bool = False
    device: str = "auto"
    iql: IQLConfig = field(default_factory=IQLConfig)
    tabb: TabbConfig = field(default_factory=TabbConfig)

    def to_json(self) -> dict[str, Any]:
        """Nested plain values."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain

    @classmethod
    def from_json(cls, plain: dict[str, Any]) -> TrainConfig:
        """The inverse of `to_json`; raises TypeError on an unknown key."""
        iql, tabb = dict(plain["iql"]), dict(plain["tabb"])
        iql |= {"hidden": tuple(iql["hidden"]), "weigh": tuple(iql["weigh"])}
        tabb["predictor"] = PredictorConfig(**tabb["predictor"])
        return cls(**{**plain, "iql": IQLConfig(**iql), "tabb": TabbConfig(**tabb)})


def write_atomic(path: Path, content: bytes) -> None:
    """Replace `path` by `content`; a reader sees the old or the new file, never half of one."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    partial.replace(path)
