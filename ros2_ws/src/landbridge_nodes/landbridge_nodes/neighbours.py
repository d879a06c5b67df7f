"""Whether a ROS domain has a robot already: two bring-ups in one would hear each other's states and share services."""

from __future__ import annotations

import time
from contextlib import ExitStack

from typing_extensions import Self

from landbridge.errors import InputError
from landbridge_nodes import topics
from landbridge_nodes.process import client

NAMELESS = "_NODE_NAME_UNKNOWN_"  # rmw's word for a node whose name it does not know yet
LISTEN_SECONDS = 1.0  # to hear of others: this_machine.xml has them tell of themselves every 0.5; monitors look out too
NAMING_SECONDS = 5.0  # to learn the names of those that were heard


class Neighbours(ExitStack):
    """Listens for bridges and monitors while the caller does something else; a context manager."""

    def __enter__(self) -> Self:
        self._node = self.enter_context(client("operator", enable_rosout=False, start_parameter_services=False))
        self._since = time.monotonic()
        return self

    def require_none(self) -> None:
        """Raise InputError if there is one; waits until it has listened for LISTEN_SECONDS in all."""
        while not (found := self._names()) and time.monotonic() - self._since < LISTEN_SECONDS:
            time.sleep(0.01)
        deadline = time.monotonic() + NAMING_SECONDS
        while any(NAMELESS in name for name in found) and time.monotonic() < deadline:
            time.sleep(0.01)
            found = self._names()
        if found:
            names = ", ".join(sorted("a node without a name yet" if NAMELESS in name else name for name in found))
            problem = f"domain {self._node.context.get_domain_id()} has a robot already: {names}"
            raise InputError("ROS_DOMAIN_ID", problem, "end that one, or give this one a ROS_DOMAIN_ID of its own")

    def _names(self) -> set[str]:
        return {
            f"{info.node_namespace.rstrip('/')}/{info.node_name}"
            for topic in (topics.SAFETY_STATE, topics.BRIDGE_FAULT)
            for info in self._node.get_publishers_info_by_topic(topic.name)
        }
