"""`landbridge calibrate excite`: the motion from which identification learns most, designed before it is recorded.

D-optimal for the windows fit: the log determinant of the information that one episode gives about the parameters, prior
included, is largest (Swevers et al., 1997, with the sensitivities of the simulated windows in place of a regressor).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cma
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from landbridge.calibration.fit import Problem, linearise
from landbridge.calibration.identify import free_parameters
from landbridge.calibration.windows import cut
from landbridge.episode import Episode, commit, now
from landbridge.errors import InputError
from landbridge.observation import Observer
from landbridge.robot import Joint, Robot, load_robot
from landbridge.simulation.behaviour import Policy, load_behaviours
from landbridge.simulation.excitation import Excitation, Following, Preview, Series, behaviour_of
from landbridge.simulation.parameters import Parameter
from landbridge.simulation.plant import Engine, make_plant
from landbridge.simulation.rollout import lockstep
from landbridge.simulation.scenario import NOMINAL, Scenario, load_scenario
from landbridge.task import load_task

Array = NDArray[np.float64]

FREQUENCIES = 8  # of each series, spread evenly on a logarithmic scale
NOISE = (0.001, 0.03)  # rad, rad/s: of the measured states that are expected
HORIZON_SECONDS = 0.5  # of a window, as `calibrate identify` cuts them
TURN = np.pi  # rad: half the range of a joint without limits
PREVIEWED = 3  # episodes of each scenario


def excite(
    out: Path = Path("excitation.yaml"),
    robot: str = "furuta",
    known: tuple[str, ...] = (),
    reach: float = 0.8,
    band_hz: tuple[float, float] = (0.3, 3.0),
    preview: tuple[str, ...] = (NOMINAL,),
    generations: int = 20,
    seed: int = 0,
) -> dict[str, Any]:
    """Design a motion from which `calibrate identify` learns most, inside the robot's limits.

    It is previewed in the twin, and written only if every limit is kept there. `landbridge record --excitation` then
    records it.

    Example: landbridge calibrate excite --out excitation.yaml --known link_mass_scale.arm_link --preview none severe

    Args:
        out: File to write.
        robot: Name of a robot with a fixed base, or a folder with robot.yaml.
        known: Parameters that need not be found.
        reach: Share of the position and velocity limits that the reference may use.
        band_hz: Lowest and highest frequency.
        preview: Rungs of scenarios.yaml that the twin is previewed on.
        generations: Of the search.
        seed: Of the search and of start states.

    Returns:
        Expected standard deviations beside those of the robot's own behaviour `excite`, and the preview.
    """
    machine = load_robot(robot)
    frequencies = _frequencies(machine, band_hz)
    if not 0 < reach < 1:
        raise InputError("--reach", f"{reach:g}", "give a share above 0 and below 1")
    rungs = {name: load_scenario(machine, name) for name in preview}
    search = Search(machine, free_parameters(machine, known), frequencies, reach, seed)
    best, information = search.run(generations)
    deviations = _deviations(information)
    found = search.excitation(best, dict(zip((p.name for p in search.free), deviations.tolist(), strict=True)))
    previews = tuple(_preview(machine, found, name, rung, seed) for name, rung in rungs.items())
    found = found.model_copy(update={"previews": previews})
    found.write(out)
    own = _deviations(search.of_behaviour("excite"))
    rows = [
        {"parameter": p.name, "designed_sd": a, "behaviour_sd": b, "ratio": a / b}
        for p, a, b in zip(search.free, deviations.tolist(), own.tolist(), strict=True)
    ]
    ratio = float(np.exp(np.log(deviations / own).mean()))
    return {
        "excitation": str(out),
        "mean_ratio": ratio,
        "parameters": rows,
        "preview": [p.model_dump() for p in previews],
    }


class Search:
    """CMA-ES (Hansen, arXiv:1604.00772) over the coefficients of all series, one episode in MuJoCo each.

    Attributes:
        free: The parameters to find.
    """

    def __init__(
        self, robot: Robot, free: Sequence[Parameter], frequencies: tuple[float, ...], reach: float, seed: int
    ) -> None:
        self._robot, self.free, self._seed = robot, free, seed
        self._frequencies, self._reach = frequencies, reach
        self._joints = [robot.spec.joint(name) for name in robot.spec.actuated]
        self._task = load_task(robot)
        self._times = np.arange(self._task.episode_steps + 1) * robot.spec.control_dt

    def run(self, generations: int) -> tuple[Array, Array]:
        """The best coefficients (2, A, K) and the information (P, P) of their episode."""
        shape = 2, len(self._joints), len(self._frequencies)
        strategy = cma.CMAEvolutionStrategy(
            np.full(int(np.prod(shape)), 0.3), 0.5, {"seed": self._seed + 1, "verbose": -9}
        )
        best, top, kept = np.zeros(shape), -np.inf, np.zeros(())
        with Progress(console=Console(stderr=True)) as progress:
            bar = progress.add_task("design", total=generations)
            for _ in range(generations):
                candidates = strategy.ask()
                series = np.stack([self._scaled(np.reshape(x, shape)) for x in candidates])
                informations = self.information(self._simulated(self.following(series), len(series)))
                gains = np.linalg.slogdet(informations)[1]
                strategy.tell(candidates, (-gains).tolist())
                if gains.max() > top:
                    at = int(np.argmax(gains))
                    best, top, kept = series[at], gains[at], informations[at]
                progress.update(bar, advance=1, description=f"log det {top:.1f}")
        return best, kept

    def following(self, series: Array) -> Policy:
        """The policy of series (B, 2, A, K)."""
        return Following(self._robot, self._frequencies, self._centres(), series[:, 0], series[:, 1])

    def of_behaviour(self, name: str) -> Array:
        """The information (P, P) of an episode of the robot's own behaviour: the mean of eight."""
        rng = np.random.default_rng(self._seed)
        return self.information(self._simulated(load_behaviours(self._robot)[name](8, rng), 8)).mean(0)

    def information(self, episodes: Sequence[Episode]) -> Array:
        """(B, P, P) of each of B episodes of the nominal simulator, prior included."""
        windows = cut(episodes, self._robot, round(HORIZON_SECONDS * self._robot.spec.control_rate_hz), "simulation")
        noise = np.repeat(NOISE, len(self._robot.spec.joints))
        problem = Problem(self._robot, self.free, windows, noise)
        nominal = np.array([p.coordinate(p.nominal) for p in self.free])
        each = linearise(problem, problem.point(nominal, windows.states[:, 0])).information
        return np.stack([np.eye(len(self.free)) + each[windows.episode == row].sum(0) for row in range(len(episodes))])

    def _simulated(self, policy: Policy, batch: int) -> list[Episode]:
        return _episodes(self._robot, "mujoco", Scenario(), policy, batch, self._seed)

    def excitation(self, series: Array, deviations: dict[str, float]) -> Excitation:
        """The file of series (2, A, K), without a preview."""
        centres = self._centres()
        joints = {
            joint.name: Series(centre=float(centres[i]), sine=tuple(series[0, i]), cosine=tuple(series[1, i]))
            for i, joint in enumerate(self._joints)
        }
        spec = self._robot.spec
        return Excitation(
            robot=spec.name,
            robot_hash=spec.digest(),
            frequencies_hz=self._frequencies,
            joints=joints,
            previews=(),
            expected_sd=deviations,
            commit=commit(),
            created=now(),
        )

    def _centres(self) -> Array:
        return np.array([_middle(joint)[0] for joint in self._joints])

    def _scaled(self, series: Array) -> Array:
        """Series (2, A, K) no larger than the joints' position and velocity limits allow."""
        halves = np.array([_middle(joint)[1] for joint in self._joints])
        speeds = np.array([joint.velocity_limit for joint in self._joints])
        series = series * halves[:, None]
        unscaled = Following(self._robot, self._frequencies, np.zeros(len(halves)), series[None, 0], series[None, 1])
        ways = [unscaled.reference(float(time)) for time in self._times]
        position, velocity = (np.abs(np.concatenate(values)).max(0) for values in zip(*ways, strict=True))
        room = self._reach * np.minimum(halves / position, speeds / velocity)
        return series * np.minimum(1.0, room)[:, None]


def _preview(robot: Robot, excitation: Excitation, name: str, scenario: Scenario, seed: int) -> Preview:
    """The shares of the limits that the twin comes to.

    Raises:
        InputError: A limit is not kept.
    """
    policy = behaviour_of(robot, excitation)(PREVIEWED, np.random.default_rng(seed))
    episodes = _episodes(robot, "bullet", scenario, policy, PREVIEWED, seed)
    position, velocity = _shares(robot, episodes)
    effort = max(float(np.abs(episode.actions).max()) for episode in episodes)
    if position >= 1 or velocity >= 1 or any(episode.terminated.any() for episode in episodes):
        problem = f"the twin comes to {position:.2f} of its position and {velocity:.2f} of its velocity limits"
        raise InputError(f"preview on {name}", problem, "lower --reach or the upper end of --band-hz")
    return Preview(scenario=name, position=position, velocity=velocity, effort=effort)


def _shares(robot: Robot, episodes: Sequence[Episode]) -> tuple[float, float]:
    """The largest shares of position limits (actuated joints) and velocity limits (all joints) in some episodes."""
    observer, position, velocity = Observer(robot.spec), 0.0, 0.0
    for episode in episodes:
        positions, velocities = observer.joint_state(episode.obs)
        for i, joint in enumerate(robot.spec.joints):
            middle, half = _middle(joint)
            if joint.actuated:
                position = max(position, float(np.abs(positions[:, i] - middle).max() / half))
            velocity = max(velocity, float(np.abs(velocities[:, i]).max() / joint.velocity_limit))
    return position, velocity


def _episodes(robot: Robot, engine: Engine, scenario: Scenario, policy: Policy, batch: int, seed: int) -> list[Episode]:
    rng = np.random.default_rng(seed)
    plants = [make_plant(robot, engine, scenario, each) for each in rng.spawn(batch)]
    try:
        return lockstep(plants, load_task(robot), policy, rng)
    finally:
        for plant in plants:
            plant.close()


def _frequencies(robot: Robot, band_hz: tuple[float, float]) -> tuple[float, ...]:
    low, high = band_hz
    nyquist = robot.spec.control_rate_hz / 2
    if not 0 < low < high < nyquist:
        raise InputError("--band-hz", f"{low:g} {high:g}", f"give two rising frequencies between 0 and {nyquist:g}")
    return tuple(np.geomspace(low, high, FREQUENCIES).round(4).tolist())


def _middle(joint: Joint) -> tuple[float, float]:
    """Middle and half width [rad] of a joint's range."""
    if joint.position_limit is None:
        return joint.default_joint_pos, TURN
    lower, upper = joint.position_limit
    return (lower + upper) / 2, (upper - lower) / 2


def _deviations(information: Array) -> Array:
    return np.sqrt(np.diag(np.linalg.inv(information)))
