"""Live monitors: has the robot ceased to behave like the robot its policy was trained for?

`TargetMismatch` asks the target model of `alignment.onnx` what the robot would have done, and what the difference is
worth; `Distance` asks how far observation and action are from the target data. Either score becomes an alarm by its
mean over a window against a limit that the trainer set from held-out rollouts of the robot (`Manifest.drift`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from landbridge.bundle import Bundle
from landbridge.deploy.graph import Graph
from landbridge.envelope import Envelope
from landbridge.errors import InputError
from landbridge.manifest import REMEDY as BROKEN
from landbridge.manifest import Drift, Threshold
from landbridge.observation import Observer, command_to_action, push_action
from landbridge.onnx_session import CPU

GOLDEN_TOLERANCE = 0.01  # of the mismatch, per unit of its limit; float32 gives about 1e-4
REMEDY = "export a run with a minute of target data, of an agent that has a value (iql, cql, td3bc)"

Row = NDArray[np.floating]


class Alarm:
    """The mean of a score over a sliding window, and whether it has ever been above its limit.

    Attributes:
        mean: Of the last `window` scores; NaN until there are that many.
        raised: Latched by the first mean above the limit, or by a score that is not a number.
    """

    def __init__(self, window: int, threshold: Threshold) -> None:
        self.window, self.limit = window, threshold.limit
        self._ring = np.zeros(window)
        self.raised = False
        self.restart()

    def restart(self) -> None:
        """A new stretch of motion: forget the scores, keep the alarm."""
        self._count, self.mean = 0, float("nan")

    def reset(self) -> None:
        """Forget the alarm, too."""
        self.restart()
        self.raised = False

    def update(self, score: float) -> bool:
        """Take one score; returns `raised`."""
        self._ring[self._count % self.window] = score
        self._count += 1
        if not np.isfinite(score):
            self.raised = True
        if self._count >= self.window:
            self.mean = float(self._ring.mean())
            self.raised = self.raised or not self.mean <= self.limit
        return self.raised


class TargetMismatch:
    """gamma mean_k |V(s') - V(s^_k)| of a transition; see `training.monitoring.TargetModel`.

    Attributes:
        alarm: Of the mismatch.

    Raises:
        InputError: The bundle has no target model, or it does not reproduce its golden vectors on this machine.
    """

    def __init__(self, bundle: Bundle, provider: str = CPU) -> None:
        drift = _drift(bundle)
        if drift.mismatch is None or "alignment.onnx" not in bundle.files:
            raise InputError(bundle.path, "alignment.onnx is missing", REMEDY)
        n, m = len(bundle.manifest.observation), len(bundle.manifest.actuated)
        inputs = {"obs": (1, n), "action": (1, m), "next_obs": (1, n)}
        outputs = {"mismatch": (1,), "predicted": (-1, 1, n)}
        path, model = bundle.path / "alignment.onnx", bundle.files["alignment.onnx"]
        self._graph = Graph(path, model, inputs, outputs, (provider,))
        self._rows = [buffer[0] for buffer in self._graph.inputs.values()]
        self._mismatch = self._graph.outputs["mismatch"]
        self.alarm = Alarm(drift.window, drift.mismatch)
        self._check_golden(bundle, drift.mismatch.limit * GOLDEN_TOLERANCE)

    @property
    def predicted(self) -> NDArray[np.float32]:
        """Next observations (members, n) that the last call expected; overwritten by the next one."""
        return self._graph.outputs["predicted"][:, 0]

    def __call__(self, obs: Row, action: Row, next_obs: Row) -> float:
        """The mismatch of one transition: obs (n,), action (m,) asked for, next_obs (n,); moves no alarm."""
        for buffer, row in zip(self._rows, (obs, action, next_obs), strict=True):
            buffer[:] = row
        self._graph.run()
        return float(self._mismatch[0])

    def _check_golden(self, bundle: Bundle, tolerance: float) -> None:
        golden = bundle.arrays("golden.npz")
        parts = [golden[f"alignment_{name}"] for name in ("obs", "action", "next_obs", "mismatch")]
        if not len(parts[0]) or len({len(part) for part in parts}) > 1:
            problem = f"alignment vectors are {[part.shape for part in parts]}"
            raise InputError(bundle.path / "golden.npz", problem, BROKEN)
        *rows, wanted = parts
        found = np.array([self(*row) for row in zip(*rows, strict=True)])
        error = float(np.abs(found - wanted).max())
        if not error <= tolerance:
            raise InputError(
                bundle.path / "golden.npz",
                f"mismatches differ by {error:.3g} on {self._graph.provider}, allowed is {tolerance:.3g}",
                "do not watch with it here; export it again, or use another provider",
            )


class Distance:
    """Mahalanobis distance of [obs | action] from the target data; see `landbridge.envelope`.

    Attributes:
        alarm: Of the distance.

    Raises:
        InputError: The bundle was exported without target data.
    """

    def __init__(self, bundle: Bundle) -> None:
        drift, arrays = _drift(bundle), bundle.arrays("envelope.npz")
        mean, cov = arrays["target_mean"], arrays["target_cov"]
        try:
            self._envelope = Envelope(mean, cov)
        except (ValueError, np.linalg.LinAlgError) as error:
            problem = f"target_cov {cov.shape} is no covariance of target_mean {mean.shape}: {error}"
            raise InputError(bundle.path / "envelope.npz", problem, BROKEN) from error
        self.alarm = Alarm(drift.window, drift.envelope)

    def __call__(self, obs: Row, action: Row) -> float:
        """The distance of one tick; moves no alarm."""
        return float(self._envelope.distance(np.concatenate([obs, action])))


class Watch:
    """Both monitors over a stream of ticks.

    Attributes:
        alarms: `mismatch` and `distance`.

    Raises:
        InputError: As `TargetMismatch` and `Distance`.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.mismatch, self.distance = TargetMismatch(bundle), Distance(bundle)
        self.alarms = {"mismatch": self.mismatch.alarm, "distance": self.distance.alarm}
        self._last: tuple[Row, Row] | None = None

    def restart(self) -> None:
        """A new stretch of motion: the next tick follows no other, and windows begin anew."""
        self._last = None
        for alarm in self.alarms.values():
            alarm.restart()

    def update(self, obs: Row, action: Row) -> bool:
        """Take one tick, obs (n,) and the action (m,) answered to it; returns whether any alarm is raised.

        A measurement that is no number says nothing of the robot, and the guard stops that: the next tick follows none.
        """
        if not np.isfinite(obs).all():
            self.restart()
            return any(alarm.raised for alarm in self.alarms.values())
        if self._last is not None:
            self.mismatch.alarm.update(self.mismatch(*self._last, obs))
        self.distance.alarm.update(self.distance(obs, action))
        self._last = np.array(obs), np.array(action)
        return any(alarm.raised for alarm in self.alarms.values())


class Written:
    """Ticks of a compensated robot as they were for its motors: the target model knows the bare robot.

    There the action is what was written, and so are the actions in flight that the observation holds.
    """

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self.restart()

    def restart(self) -> None:
        """A new stretch of motion: nothing has been written yet."""
        self._history = self._observer.initial_history(1)

    def __call__(self, obs: Row, command: NDArray[np.float64]) -> tuple[Row, Row]:
        """Observation (n,) and action (m,) of a tick: `obs` (n,) is what the policy saw, `command` (m,) was sent."""
        action = command_to_action(self._observer.spec, command)
        seen = self._observer.with_sent(obs[None], self._history)[0]
        self._history = push_action(self._history, action[None])
        return seen, action


def watch_of(bundle: Bundle) -> Watch | None:
    """The monitors of a bundle; None if it brings no target model along.

    Raises:
        InputError: The target model does not reproduce its golden vectors on this machine.
    """
    drift = bundle.manifest.drift
    return None if drift is None or drift.mismatch is None else Watch(bundle)


def _drift(bundle: Bundle) -> Drift:
    if bundle.manifest.drift is None:
        raise InputError(bundle.path / "manifest.json", "drift: has no limits", REMEDY)
    return bundle.manifest.drift
