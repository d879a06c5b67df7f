"""Drivers behind one interface; the bridge owns the only handle."""
