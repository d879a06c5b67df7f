"""Offline RL agents by name. An agent consumes batches with one weight per row and knows nothing of domains."""

from __future__ import annotations

from landbridge.training.agents.base import Agent
from landbridge.training.agents.bc import BC
from landbridge.training.agents.cql import CQL
from landbridge.training.agents.iql import IQL
from landbridge.training.agents.td3bc import TD3BC

AGENTS: dict[str, type[Agent]] = {"iql": IQL, "cql": CQL, "td3bc": TD3BC, "bc": BC}
