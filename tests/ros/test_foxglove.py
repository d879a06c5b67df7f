"""`docs/foxglove.json`: every path of the layout leads to a value in a recorded log, every button to a service."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from landbridge.bag import BagReader
from landbridge_nodes import topics
from landbridge_nodes.listener import REQUESTS

LOG = Path(__file__).parent / "data" / "replay.mcap"
COMMANDS = {topics.COMMAND.name, topics.GUARD_COMMAND.name}  # of furuta: efforts


@pytest.fixture(scope="module")
def layout(repository: Path) -> Any:
    return json.loads((repository / "docs" / "foxglove.json").read_text())


def panels(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    else:
        yield from panels(node["first"])
        yield from panels(node["second"])


def value(message: Any, path: str, variables: dict[str, int]) -> Any:
    """What Foxglove's message path shows of a message: fields, and one element of an array by number or variable."""
    for field, index in re.findall(r"\.(\w+)(?:\[\$?(\w+)\])?", path):
        message = getattr(message, field)
        if index:
            message = message[variables[index] if index in variables else int(index)] if len(message) else None
    return message


def test_every_panel_has_its_place(layout: Any) -> None:
    assert sorted(panels(layout["layout"])) == sorted(layout["configById"])


def test_every_path_leads_to_a_value_in_a_log(layout: Any) -> None:
    names = {topic.name for topic in topics.TOPICS}
    newest = {topic: message for topic, _, message in BagReader(LOG).messages(names)}
    paths = [path["value"] for panel in layout["configById"].values() for path in panel.get("paths", [])]
    assert len(paths) == 14
    for path in paths:
        topic = next(name for name in names if path.startswith(name + "."))
        found = value(newest[topic], path.removeprefix(topic), layout["globalVariables"])
        other_kind = topic in COMMANDS and re.search(r"\.(position|velocity)\[", path)  # the array is there, and empty
        assert (found is None) if other_kind else isinstance(found, float | str), path


def test_the_buttons_call_the_monitors_services(layout: Any) -> None:
    services = {panel.get("serviceName") for panel in layout["configById"].values()} - {None}
    assert services == {f"/monitor/{event.value}" for event in REQUESTS}
    assert layout["configById"]["DiagnosticSummary!nodes"]["topicToRender"] == topics.DIAGNOSTICS.name
