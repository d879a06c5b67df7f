"""The design of an excitation: the series whose episode tells most about the parameters.

D-optimal for the windows fit: the log determinant of the information that one episode gives, prior included, is
largest (Swevers et al., 1997, with the sensitivities of the simulated windows in place of a regressor).
"""

from __future__ import annotations

from collections.abc import Sequence

import cma
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from landbridge.calibration.fit import Problem, linearise
from landbridge.calibration.windows import cut
from landbridge.episode import Episode
from landbridge.joint import Joint
from landbridge.robot import Robot
from landbridge.simulation.behaviour import Behaviour, Policy
from landbridge.simulation.excitation import Following, Series
from landbridge.simulation.parameters import Parameter
from landbridge.simulation.plant import Engine, opened
from landbridge.simulation.rollout import lockstep
from landbridge.simulation.scenario import Scenario
from landbridge.task import load_task

Array = NDArray[np.float64]

NOISE = (0.001, 0.03)  # rad, rad/s: of the measured states that are expected
HORIZON_SECONDS = 0.5  # of a window, as `calibrate identify` cuts them
TURN = np.pi  # rad: half the range of a joint without limits
STARTS = 2  # start states that a candidate is judged from: one alone, it would be fitted to
JUDGED = 8  # start states, others, that the result is judged from
FIRST_SIZE, FIRST_SPREAD = 0.3, 0.5  # of the search, in half ranges; what is too large is scaled to the limits


class Design:
    """Episodes of one robot in the nominal simulator, and what they tell of its parameters.

    Series are arrays (2, A, K): sines and cosines of A joints at K frequencies [rad].

    Attributes:
        free: The P parameters to find.
    """

    def __init__(
        self, robot: Robot, free: Sequence[Parameter], frequencies: tuple[float, ...], reach: float, seed: int
    ) -> None:
        self.free = free
        self._robot, self._frequencies, self._reach, self._seed = robot, frequencies, reach, seed
        self._joints = robot.spec.driven
        self._centres, self._halves = np.array([middle(joint) for joint in self._joints]).T

    def search(self, generations: int) -> Array:
        """The best series, by CMA-ES (Hansen, arXiv:1604.00772)."""
        shape = 2, len(self._joints), len(self._frequencies)
        options = {"seed": self._seed + 1, "verbose": -9}
        strategy = cma.CMAEvolutionStrategy(np.full(int(np.prod(shape)), FIRST_SIZE), FIRST_SPREAD, options)
        best, top = np.zeros(shape), -np.inf
        with Progress(console=Console(stderr=True)) as progress:
            bar = progress.add_task("design", total=generations)
            for _ in range(generations):
                candidates = strategy.ask()
                series = np.stack([self.scaled(np.reshape(x, shape)) for x in candidates])
                gains = np.linalg.slogdet(self.of_series(series, STARTS, self._seed))[1]
                strategy.tell(candidates, (-gains).tolist())
                if gains.max() > top:
                    best, top = series[int(np.argmax(gains))], float(gains.max())
                progress.update(bar, advance=1, description=f"log det {top:.1f}")
        return best

    def deviations(self, series: Array) -> Array:
        """Standard deviations (P,) of z that an episode along `series` leaves, from start states of its own."""
        return _deviations(self.of_series(series[None], JUDGED, self._seed + 1)[0])

    def deviations_of(self, behaviour: Behaviour) -> Array:
        """As `deviations`, for a behaviour."""
        policy = behaviour(JUDGED, np.random.default_rng(self._seed + 1))
        return _deviations(self.information(policy, JUDGED, self._seed + 1).mean(0))

    def of_series(self, series: Array, starts: int, seed: int) -> Array:
        """The information (B, P, P) of an episode along each of B series: the mean over start states."""
        every = np.repeat(series, starts, axis=0)
        found = self.information(self._follow(every), len(every), seed)
        return found.reshape(len(series), starts, *found.shape[1:]).mean(1)

    def following(self, series: Array, batch: int) -> Policy:
        """The policy of a batch of episodes along `series`."""
        return self._follow(np.repeat(series[None], batch, axis=0))

    def _follow(self, every: Array) -> Policy:
        return Following(self._robot, self._frequencies, self._centres, every[:, 0], every[:, 1])

    def information(self, policy: Policy, batch: int, seed: int) -> Array:
        """(B, P, P) about z in each episode of a batch, prior included."""
        episodes = run_episodes(self._robot, "mujoco", Scenario(), policy, batch, seed)
        windows = cut(episodes, self._robot, round(HORIZON_SECONDS * self._robot.spec.control_rate_hz), "simulation")
        noise = np.repeat(NOISE, len(self._robot.spec.joints))
        problem = Problem(self._robot, self.free, windows, noise)
        nominal = np.array([p.coordinate(p.nominal) for p in self.free])
        each = linearise(problem, problem.point(nominal, windows.states[:, 0])).information
        return np.stack([np.eye(len(self.free)) + each[windows.episode == row].sum(0) for row in range(batch)])

    def named(self, series: Array) -> dict[str, Series]:
        """`series` by joint."""
        return {
            joint.name: Series(centre=float(centre), sine=tuple(sine.tolist()), cosine=tuple(cosine.tolist()))
            for joint, centre, sine, cosine in zip(self._joints, self._centres, *series, strict=True)
        }

    def scaled(self, series: Array) -> Array:
        """`series` in half ranges to [rad], no larger than limits of position, velocity and rate allow."""
        series = series * self._halves[:, None]
        times = np.arange(load_task(self._robot).episode_steps + 1) * self._robot.spec.control_dt
        plain = Following(self._robot, self._frequencies, np.zeros(len(self._halves)), series[None, 0], series[None, 1])
        ways = [plain.reference(float(time)) for time in times]
        position, velocity = (np.abs(np.concatenate(values)).max(0) for values in zip(*ways, strict=True))
        speeds = np.array([joint.velocity_limit for joint in self._joints])
        if self._robot.spec.action.kind == "position":  # whose targets the guard lets move no faster
            speeds = np.minimum(speeds, [joint.rate_limit or np.inf for joint in self._joints])
        room = self._reach * np.minimum(self._halves / position, speeds / velocity)
        return series * np.minimum(1.0, room)[:, None]


def run_episodes(
    robot: Robot, engine: Engine, scenario: Scenario, policy: Policy, batch: int, seed: int
) -> list[Episode]:
    """An episode of the robot's task in each of a batch of plants."""
    rng = np.random.default_rng(seed)
    with opened(robot, engine, [scenario] * batch, rng.spawn(batch)) as plants:
        return lockstep(plants, load_task(robot), policy, rng)


def middle(joint: Joint) -> tuple[float, float]:
    """Middle and half width [rad] of a joint's range."""
    if joint.position_limit is None:
        return joint.default_joint_pos, TURN
    lower, upper = joint.position_limit
    return (lower + upper) / 2, (upper - lower) / 2


def _deviations(information: Array) -> Array:
    return np.sqrt(np.diag(np.linalg.inv(information)))
