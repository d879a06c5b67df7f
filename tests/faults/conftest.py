"""The bring-up that the tests of this folder strike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from landbridge_nodes.operator import Operator

from .rig import FURUTA, WEIGHT, Rig


@pytest.fixture(scope="module")
def bring_up(
    tmp_path_factory: pytest.TempPathFactory,
    new_ros_domain: Callable[[pytest.MonkeyPatch], None],
    linear_bundle: Callable[..., Path],
) -> Iterator[Rig]:
    """Recorder, bridge, policy and monitor, for all tests of a file."""
    folder = tmp_path_factory.mktemp("faults")
    with pytest.MonkeyPatch.context() as patch:
        new_ros_domain(patch)
        with Operator(FURUTA, lambda: None) as operator:
            rig = Rig(folder, linear_bundle(folder / "bundle", WEIGHT), operator)
            try:
                yield rig
            finally:
                rig.end()


@pytest.fixture
def rig(bring_up: Rig, request: pytest.FixtureRequest) -> Iterator[Rig]:
    """The bring-up in STANDBY; a parameter (executable, source) replaces one executable."""
    bring_up.mend(*getattr(request, "param", ()))
    yield bring_up
    bring_up.resume()
