"""Landbridge: carry a policy from simulator logs to a physical robot.

The package holds what both sides of the bridge must agree on (`robot`, `observation`, `task`, `episode`, `bundle`);
`simulation`, `training`, `deploy`, `calibration` and `robots` are the repository's top-level folders, linked in.
"""

__version__ = "0.1.0"
