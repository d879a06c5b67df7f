"""How messages travel: on this machine only, unless the environment says otherwise, and never through shared memory.

Fast DDS checks whether a reader of its shared memory is alive, under the lock that all of a process's publishers need,
for up to 333 ms (eProsima/Fast-DDS#6535). Once a process was killed it does so again and again: the bridge's tick, or
the monitor's heartbeat, waited for so long, and the robot was stopped. `benchmarks/restarts.py` counts it.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from pathlib import Path

RANGE, LOCALHOST_ONLY = "ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_LOCALHOST_ONLY"
PROFILES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")  # Fast DDS 2 (to Jazzy), 3 (from Kilted)
THIS_MACHINE = str(Path(__file__).with_name("this_machine.xml"))
PEERS = ("ROS_STATIC_PEERS", "ROS_DISCOVERY_SERVER")  # the profile knows of none


def stay_on_this_machine(environment: MutableMapping[str, str] = os.environ) -> None:
    """Have ROS look for others on this machine only, unless the environment says otherwise already.

    Humble does not know the discovery range; from Iron on, ROS_LOCALHOST_ONLY=1 would override a range that was chosen.
    """
    if environment.get("ROS_DISTRO") == "humble":
        environment.setdefault(LOCALHOST_ONLY, "1")
    else:
        environment.setdefault(RANGE, "LOCALHOST")
    avoid_shared_memory(environment)


def avoid_shared_memory(environment: MutableMapping[str, str] = os.environ) -> None:
    """Have Fast DDS use UDP, unless the environment configures it, or its peers, otherwise; before `rclpy.init`.

    On this machine only, rmw_fastrtps adds shared memory whatever Fast DDS is told, so our profile takes the place of
    that range. Beyond this machine Fast DDS goes by a variable that Humble's does not know yet.
    """
    if not environment.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp").startswith("rmw_fastrtps"):
        return
    environment.setdefault("FASTDDS_BUILTIN_TRANSPORTS", "UDPv4")
    local = environment.get(RANGE) == "LOCALHOST" or environment.get(LOCALHOST_ONLY) == "1"
    configured = any(environment.get(name, THIS_MACHINE) != THIS_MACHINE for name in PROFILES)
    if not local or configured or any(environment.get(name) for name in PEERS):
        return
    environment.update(dict.fromkeys(PROFILES, THIS_MACHINE))
    environment[RANGE] = "SYSTEM_DEFAULT"  # as the profile says
    if LOCALHOST_ONLY in environment:
        environment[LOCALHOST_ONLY] = "0"
