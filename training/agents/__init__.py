"""Offline RL agents by name. An agent consumes batches with one weight per row and knows nothing of domains."""

from __future__ import annotations

from landbridge.training.agents.iql import IQL

AGENTS = {"iql": IQL}
