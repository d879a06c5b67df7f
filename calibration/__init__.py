"""Measuring a robot's delay, offsets and friction, so that the simulator can be told."""
