"""The excite node: the robot's own behaviour with exploration noise, or a designed motion, to record rollouts with."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landbridge.errors import InputError
from landbridge.simulation.behaviour import Behaviour, Policy, load_behaviours
from landbridge.simulation.excitation import behaviour_of, read_excitation
from landbridge_nodes.controller import Controller
from landbridge_nodes.process import CONTROLLER_PRIORITY, run

BEHAVIOUR = "excite"


class ExciteNode(Controller):
    """Lifecycle node `excite`. Parameters: robot; seed; excitation, a file of `landbridge calibrate excite`.

    Each activation draws a new variant of the behaviour; a designed motion begins with each stretch of ACTIVE.

    Raises:
        InputError: The robot has no behaviour `excite`, or the excitation is another robot's.
    """

    def __init__(self) -> None:
        super().__init__("excite")
        self._designed: str = self.declare_parameter("excitation", "").value
        self._rng = np.random.default_rng(self.declare_parameter("seed", 0).value)
        self._make = self._made()
        self.start()

    def _made(self) -> Behaviour:
        if self._designed:
            return behaviour_of(self.robot, read_excitation(Path(self._designed), self.robot))
        behaviours = load_behaviours(self.robot)
        if BEHAVIOUR not in behaviours:
            where, known = self.robot.folder / "behaviour.py", sorted(behaviours)
            raise InputError(where, f"no behaviour {BEHAVIOUR!r} among {known}", "add one to make_behaviours")
        return behaviours[BEHAVIOUR]

    def begin(self) -> None:
        """Begin a designed motion at its beginning."""
        if self._designed:
            self.start()

    def start(self) -> None:
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
