"""The manifest of a bundle: what a policy is, in the present schema version, and how older versions become it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt

from landbridge.errors import InputError
from landbridge.observation import Observer
from landbridge.robot import RobotSpec
from landbridge.spec import Finite, Positive, Spec, validated

SCHEMA_VERSION = 3
CALIBRATION = "_calibration"  # after a domain's name, in `provenance`
UNWATCHED = "unwatched"  # in `provenance`: why no target model watches on board, and what would get one
IMPORTED = "imported"  # in place of an agent's name: whatever the policy does to its observation is unseen in its graph
MAX_GOLDEN_TOLERANCE = 0.01  # half of what fp16 is allowed; another policy differs by more than that somewhere
REMEDY = "export the bundle again and copy it whole"


class Threshold(Spec):
    """Limit of one score, from the robot's held-out data.

    Attributes:
        floor: Median of the score on single held-out ticks: the noise that a healthy robot has, too.
        limit: A mean over the window above it is an alarm.
    """

    floor: Finite
    limit: Finite


class Drift(Spec):
    """When the live monitors of `landbridge.deploy.drift` raise an alarm.

    limit = margin * (the `quantile` of the score's means over windows of held-out target rollouts), so on such data a
    window would be over limit / margin with a share of 1 - quantile, and over the limit more rarely.

    Attributes:
        window: Control ticks that a score is averaged over.
        heldout_ticks: Transitions that the limits are from.
        mismatch: Of the target Bellman mismatch; None without `alignment.onnx`.
        envelope: Of the Mahalanobis distance from the target data.
    """

    window: PositiveInt
    quantile: Finite
    margin: Finite
    heldout_ticks: int
    mismatch: Threshold | None
    envelope: Threshold


class Manifest(Spec):
    """What a policy is, for a person and for the loader.

    Attributes:
        joints: All joints by name, in the order the observation was built with.
        actuated: Joints of the action vector, in order.
        observation: Names of the observation's scalars, in order.
        robot_hash: `RobotSpec.digest()` of the robot it was trained for.
        task_hash: `Task.digest()` of its reward.
        dataset_hashes: Digest of each dataset it was trained on, by path as given.
        config: The trainer's full configuration.
        obs_mean, obs_std: The normaliser inside `policy.onnx`, full precision; 0 and 1 where it is `IMPORTED`.
        golden_tolerance: Largest |difference| allowed between golden and computed actions in [-1, 1].
        scores: Figures known at export (for example success on a scenario), by name.
        provenance: Versions, commit, seed, creation time; of a dataset that was made with a `calibration.yaml` that
            file's digest, as `source_calibration`.
        drift: Limits of the live monitors; None without target data to set them by.
        state: Shape of each state of a recurrent policy by its name: `policy.onnx` reads NAME_in and answers NAME_out,
            float32, and an episode begins with zeros. Empty for a feed-forward policy.
    """

    schema_version: Literal[3] = 3
    robot: str
    robot_hash: str
    task: str
    task_hash: str
    joints: tuple[str, ...]
    actuated: tuple[str, ...]
    observation: tuple[str, ...]
    control_rate_hz: float
    agent: str
    alignment: str
    dataset_hashes: dict[str, str]
    config: dict[str, Any]
    obs_mean: tuple[float, ...]
    obs_std: tuple[float, ...]
    golden_tolerance: Annotated[Positive, Field(le=MAX_GOLDEN_TOLERANCE)]
    scores: dict[str, float]
    provenance: dict[str, str]
    drift: Drift | None = None
    state: dict[str, tuple[PositiveInt, ...]] = Field(default={})

    @classmethod
    def of(cls, spec: RobotSpec, **others: Any) -> Manifest:
        """The manifest of a policy for the robot `spec`, whose facts are copied in; `others` are the other fields."""
        return cls(
            robot=spec.name,
            robot_hash=spec.digest(),
            joints=tuple(spec.joint_names),
            actuated=tuple(spec.actuated),
            observation=tuple(Observer(spec).names),
            control_rate_hz=spec.control_rate_hz,
            **others,
        )


def parse_manifest(where: Path, content: bytes) -> Manifest:
    """The content of the file `where` in its present form, whichever version wrote it.

    Raises:
        InputError: An unknown schema version, or a field that is missing, unknown or of another type.
    """
    try:
        plain = json.loads(content)
        version = plain["schema_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(where, f"schema_version: cannot be read ({error!r:.100})", REMEDY) from error
    if version not in (*MIGRATIONS, SCHEMA_VERSION):
        raise InputError(
            where,
            f"schema_version: {version!r}, this landbridge reads {min(MIGRATIONS)} to {SCHEMA_VERSION}",
            "update landbridge on this machine, or export the bundle with this version",
        )
    while version != SCHEMA_VERSION:
        plain = MIGRATIONS[version](plain)
        version = plain["schema_version"]
    return validated(Manifest, plain, where, REMEDY)


def _from_version_1(plain: dict[str, Any]) -> dict[str, Any]:
    """Version 1 had no drift thresholds, and its envelope describes observations without actions."""
    return {**plain, "schema_version": 2}


def _from_version_2(plain: dict[str, Any]) -> dict[str, Any]:
    """Version 2 had feed-forward policies only."""
    return {**plain, "schema_version": 3}


MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_version_1, 2: _from_version_2}
