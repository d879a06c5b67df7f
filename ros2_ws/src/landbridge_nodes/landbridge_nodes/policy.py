"""The policy node: a verified bundle in, commands out."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landbridge.bundle import read_bundle
from landbridge.deploy.runtime import CPU, load_policy
from landbridge.signature import require_signature
from landbridge_nodes.controller import Controller
from landbridge_nodes.process import CONTROLLER_PRIORITY, run


class PolicyNode(Controller):
    """Lifecycle node `policy`.

    Parameters: robot, bundle, require_signature (public key that must have signed the bundle; "" asks for none),
    provider, strict (refuse a provider that falls back).

    Raises:
        InputError: The bundle is broken, not signed as required, is for another robot, or does not reproduce its golden
            vectors here.
    """

    def __init__(self) -> None:
        super().__init__("policy")
        bundle = read_bundle(Path(self.declare_parameter("bundle", "").value))
        if public_key := self.declare_parameter("require_signature", "").value:
            require_signature(bundle, Path(public_key))
        bundle.require_robot(self.spec)
        provider = self.declare_parameter("provider", CPU).value
        self._policy = load_policy(bundle, (provider,), self.declare_parameter("strict", False).value)
        self.get_logger().info(f"bundle {bundle.digest[:12]} on {self._policy.provider}")

    def act(self, obs: NDArray[np.float32]) -> NDArray[np.floating]:
        """One inference."""
        return self._policy(obs)


def main() -> None:
    """Entry point of the executable `policy`."""
    sys.exit(run(PolicyNode, CONTROLLER_PRIORITY))


if __name__ == "__main__":
    main()
