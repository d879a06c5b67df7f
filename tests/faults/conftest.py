"""The bring-up that the tests of this folder strike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .rig import WEIGHT, Rig


@pytest.fixture(scope="module")
def struck(
    tmp_path_factory: pytest.TempPathFactory,
    new_ros_domain: Callable[[pytest.MonkeyPatch], None],
    linear_bundle: Callable[..., Path],
) -> Iterator[Rig]:
    """Recorder, bridge, policy and monitor, as the test before has left them."""
    folder = tmp_path_factory.mktemp("rig")
    with pytest.MonkeyPatch.context() as patch:
        new_ros_domain(patch)
        with Rig(folder, linear_bundle(folder / "bundle", WEIGHT)) as rig:
            yield rig


@pytest.fixture
def rig(struck: Rig) -> Rig:
    """`struck` in order again, and in STANDBY."""
    struck.renew()
    return struck
