"""Which nodes a file of parameters speaks to: ROS 2 passes over a section whose name no node has, without a word."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from landbridge.errors import InputError

PARAMETERS = "ros__parameters"
ALIKE = 0.8  # of 1: `polcy`, `brigde`; not `policy_left`


def require_heard(node: str, arguments: Sequence[str]) -> None:
    """Raise InputError if a file has no section for a node, but one that seems to be meant for it.

    Such a section goes by the node's name in another namespace, or by one that is almost the node's. One for every
    node, `/**`, is for none in particular.

    Args:
        node: Its full name, `/left/policy`.
        arguments: Of its process, by which ROS 2 has read those files.
    """
    for word, after in pairwise(arguments):
        if word != "--params-file":
            continue
        sections = [name for name in _sections(yaml.safe_load(Path(after).read_text())) if name != "/**"]
        if any(_is_for(name, node) for name in sections):
            continue
        if meant := [name for name in sections if get_close_matches(_last(name), [_last(node)], 1, ALIKE)]:
            raise InputError(after, f"has no section for {node}, but one for {meant[0]}", "rename it, or the node")


def _sections(content: Any, above: str = "") -> Iterator[str]:
    """Full names of the nodes that a file of parameters speaks to: its keys may be nested by namespace."""
    if not isinstance(content, Mapping):
        return
    for key, below in content.items():
        if key == PARAMETERS:
            yield above
        else:
            yield from _sections(below, f"{above}/{str(key).strip('/')}")


def _is_for(section: str, node: str) -> bool:
    """As ROS 2 has it: in a section's name `*` stands for one word, `**` for any number of them."""
    patterns = {"*": "/[^/]+", "**": "(/[^/]+)*"}
    words = section.split("/")[1:]
    return re.fullmatch("".join(patterns.get(word, f"/{re.escape(word)}") for word in words), node) is not None


def _last(name: str) -> str:
    return name.rsplit("/", 1)[-1]
