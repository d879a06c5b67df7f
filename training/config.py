"""The configuration of one training run, dumped to its `config.json`."""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

import tyro
from pydantic import Field, PositiveInt, TypeAdapter, ValidationError

from landbridge.errors import InputError
from landbridge.spec import MAX_SEED, Positive
from landbridge.training.agents.base import AgentConfig
from landbridge.training.agents.bc import BCConfig
from landbridge.training.agents.cql import CQLConfig
from landbridge.training.agents.iql import IQLConfig
from landbridge.training.agents.td3bc import TD3BCConfig
from landbridge.training.alignments.corrected import CorrectedConfig
from landbridge.training.alignments.dara import DARAConfig
from landbridge.training.alignments.density_ratio import DensityRatioConfig
from landbridge.training.alignments.dynamics import DynamicsConfig
from landbridge.training.alignments.igdf import IGDFConfig
from landbridge.training.alignments.oracle import OracleConfig, OracleCorrectedConfig
from landbridge.training.alignments.otdf import OTDFConfig
from landbridge.training.alignments.tabb import TabbConfig
from landbridge.training.alignments.vgdf import VGDFConfig

AgentName = Literal["iql", "cql", "td3bc", "bc"]
AlignmentName = Literal[
    "none",
    "source_only",
    "target_only",
    "dara",
    "igdf",
    "otdf",
    "vgdf",
    "dynamics",
    "corrected",
    "density_ratio",
    "tabb",
    "oracle",
    "oracle_corrected",
    "shuffled",
]


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a run, besides the data. Of the hyperparameters only the chosen agent's and the chosen
    alignment's matter.

    Attributes:
        agent: Offline RL agent.
        alignment: How source rows are used; `none` for logs of a calibrated simulator (docs/RESULTS.md).
        steps: Gradient steps.
        seed: Of networks, batches and held-out rows.
        rows: Source rows per step; target rows where the alignment uses no source.
        target_share: Target rows per source row, in each step. The robot's few rows are seen often, and with 1, as in
            the literature's 128 + 128, a policy imitates them, good or bad (docs/RESULTS.md).
        reward_scale: Factor on every reward.
        compile: Compile the update with torch.compile: a slow start, then faster steps.
        device: `auto` takes CUDA when present; else cpu, cuda or cuda:N.
        matmul: Precision of float32 matrix products, in torch's words: `high` is TF32 on a GPU, `medium` bfloat16 on a
            CPU that has it.
    """

    agent: AgentName = "iql"
    alignment: AlignmentName = "tabb"
    steps: PositiveInt = 10_000
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 0
    rows: PositiveInt = 256
    target_share: Annotated[float, Field(gt=0, le=1)] = 0.125
    reward_scale: Positive = 0.1
    compile: bool = False
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    matmul: Literal["highest", "high", "medium"] = "highest"
    iql: IQLConfig = field(default_factory=IQLConfig)
    cql: CQLConfig = field(default_factory=CQLConfig)
    td3bc: TD3BCConfig = field(default_factory=TD3BCConfig)
    bc: BCConfig = field(default_factory=BCConfig)
    dara: DARAConfig = field(default_factory=DARAConfig)
    igdf: IGDFConfig = field(default_factory=IGDFConfig)
    otdf: OTDFConfig = field(default_factory=OTDFConfig)
    vgdf: VGDFConfig = field(default_factory=VGDFConfig)
    corrected: CorrectedConfig = field(default_factory=CorrectedConfig)
    dynamics: DynamicsConfig = field(default_factory=DynamicsConfig)
    density_ratio: DensityRatioConfig = field(default_factory=DensityRatioConfig)
    oracle: OracleConfig = field(default_factory=OracleConfig)
    oracle_corrected: OracleCorrectedConfig = field(default_factory=OracleCorrectedConfig)
    tabb: TabbConfig = field(default_factory=TabbConfig)

    @property
    def agent_config(self) -> AgentConfig:
        """Hyperparameters of the chosen agent."""
        config: AgentConfig = getattr(self, self.agent)
        return config

    @property
    def alignment_config(self) -> Any:
        """Hyperparameters of the chosen alignment, None where it has none; `shuffled` is `tabb` with other rows."""
        return getattr(self, self._aligned, None)

    @property
    def used(self) -> set[str]:
        """The names of those of the hyperparameters that matter."""
        return {self.agent, self._aligned} & _hyperparameters().keys()

    @property
    def ignored(self) -> set[str]:
        """The names of those that were given and do not matter."""
        others = {name: kind for name, kind in _hyperparameters().items() if name not in self.used}
        return {name for name, kind in others.items() if getattr(self, name) != kind()}

    @property
    def _aligned(self) -> str:
        return "tabb" if self.alignment == "shuffled" else self.alignment

    @property
    def target_rows(self) -> int:
        """Target rows per step beside the source's."""
        return max(1, round(self.rows * self.target_share))

    def require_valid(self) -> None:
        """Raise InputError that names the first option that is out of its range."""
        try:
            TypeAdapter(TrainConfig).validate_python(asdict(self))
        except ValidationError as error:
            first = error.errors()[0]
            flag = "--" + ".".join(part for part in first["loc"] if isinstance(part, str)).replace("_", "-")
            raise InputError(flag, f"{first['msg']} (got {first['input']!r})", "give one that is") from error

    def to_json(self) -> dict[str, Any]:
        """Nested plain values; of the hyperparameters, those that matter."""
        left_out = _hyperparameters().keys() - self.used
        return {name: value for name, value in _plain(asdict(self)).items() if name not in left_out}

    @classmethod
    def from_json(cls, plain: dict[str, Any]) -> TrainConfig:
        """The inverse of `to_json`; raises TypeError on an unknown key."""
        return _from_plain(cls, plain)


def only_used(agent: str, alignment: str) -> type[TrainConfig]:
    """A `TrainConfig` of which a command line shows no other agent's or alignment's hyperparameters."""
    used = TrainConfig(agent, alignment).used  # type: ignore[arg-type]
    hidden = [
        (name, tyro.conf.Suppress[kind], field(default_factory=kind))  # type: ignore[misc, valid-type]
        for name, kind in _hyperparameters().items()
        if name not in used
    ]
    return dataclasses.make_dataclass("TrainConfig", hidden, bases=(TrainConfig,), frozen=True)


def _hyperparameters() -> dict[str, Any]:
    """Classes of the agents' and alignments' hyperparameters, by field."""
    types = typing.get_type_hints(TrainConfig)
    return {name: kind for name, kind in types.items() if dataclasses.is_dataclass(kind)}


def _plain(value: Any) -> Any:
    """Tuples as lists, as JSON would have them."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _from_plain(kind: Any, plain: dict[str, Any]) -> Any:
    types = typing.get_type_hints(kind)
    values = {}
    for name, value in plain.items():
        wanted = types.get(name)
        if dataclasses.is_dataclass(wanted):
            value = _from_plain(wanted, value)
        values[name] = tuple(value) if isinstance(value, list) else value
    return kind(**values)
