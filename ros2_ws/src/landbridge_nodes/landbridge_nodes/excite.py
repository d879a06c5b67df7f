"""The excite node: the robot's own classical behaviour with exploration noise, to record target rollouts with."""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

from landbridge.errors import InputError
from landbridge.simulation.behaviour import Policy, load_behaviours
from landbridge_nodes.controller import Controller
from landbridge_nodes.process import CONTROLLER_PRIORITY, run

BEHAVIOUR = "excite"


class ExciteNode(Controller):
    """Lifecycle node `excite`. Parameters: robot, seed. Each episode draws a new variant of the behaviour.

    Raises:
        InputError: The robot has no behaviour `excite`.
    """

    def __init__(self) -> None:
        super().__init__("excite")
        behaviours = load_behaviours(self.robot)
        if BEHAVIOUR not in behaviours:
            where, known = self.robot.folder / "behaviour.py", sorted(behaviours)
            raise InputError(where, f"no behaviour {BEHAVIOUR!r} among {known}", "add one to make_behaviours")
        self._make = behaviours[BEHAVIOUR]
        self._rng = np.random.default_rng(self.declare_parameter("seed", 0).value)
        self.begin()

    def begin(self) -> None:
        """Draw the behaviour anew."""
        self._behaviour: Policy = self._make(1, self._rng)

    def act(self, obs: NDArray[np.float32]) -> NDArray[np.floating]:
        """One step of the behaviour."""
        return np.asarray(self._behaviour(obs[None])[0], np.float64)


def main() -> None:
    """Entry point of the executable `excite`."""
    sys.exit(run(ExciteNode, CONTROLLER_PRIORITY))


if __name__ == "__main__":
    main()
