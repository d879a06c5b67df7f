"""The excite node: the robot's own behaviour with exploration noise, or a designed motion, to record rollouts with."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landbridge.errors import InputError
from landbridge.real_time import CONTROLLER_PRIORITY
from landbridge.simulation.behaviour import Behaviour, Policy, load_behaviours, require_actions
from landbridge.simulation.excitation import behaviour_of, read_excitation
from landbridge_nodes.controller import Controller
from landbridge_nodes.parameters import EXCITATION, ROBOT, SEED
from landbridge_nodes.process import run

PARAMETERS = (ROBOT, SEED, EXCITATION)
BEHAVIOUR = "excite"


class ExciteNode(Controller):
    """Lifecycle node `excite`.

    Each episode draws a new variant of the behaviour; a designed motion begins with each.

    Raises:
        InputError: The robot has no behaviour `excite`, or the excitation is another robot's.
    """

    def __init__(self) -> None:
        super().__init__("excite", PARAMETERS)
        self._make = self._made(self.told["excitation"])
        self._rng = np.random.default_rng(self.told["seed"])
        self.begin()

    def _made(self, excitation: str) -> Behaviour:
        if excitation:
            return behaviour_of(self.robot, read_excitation(Path(excitation), self.robot))
        behaviours = load_behaviours(self.robot)
        if BEHAVIOUR not in behaviours:
            where, known = self.robot.folder / "behaviour.py", sorted(behaviours)
            raise InputError(where, f"no behaviour {BEHAVIOUR!r} among {known}", "add one to make_behaviours")
        require_actions(self.robot, behaviours, [BEHAVIOUR])
        return behaviours[BEHAVIOUR]

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
