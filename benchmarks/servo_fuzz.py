"""Fuzz both vendors' parsers, as our drivers use them, with damaged and hostile answers of emulated servos.

    python benchmarks/servo_fuzz.py

Writes `benchmarks/results/servo_fuzz.json`; any exception but the driver's own ends it.
"""

from __future__ import annotations

import json
from pathlib import Path

import tyro
from rich.console import Console

from landbridge.deploy.hil.servo_fuzz import fuzz_servos
from landbridge.provenance import commit
from landbridge.robot import load_robot

RESULTS = Path(__file__).parent / "results"


def main(frames: int = 1_000_000, seed: int = 0) -> None:
    """Send `frames` answers of each kind of servo, print the counts, and record them."""
    joint = load_robot("arm").spec.joints[0]
    found = [fuzz_servos(kind, joint, frames, seed) for kind in ("dynamixel", "feetech")]
    for counts in found:
        Console().print(counts)
    (RESULTS / "servo_fuzz.json").write_text(
        json.dumps({"commit": commit(), "seed": seed, "servos": found}, indent=2) + "\n"
    )


if __name__ == "__main__":
    tyro.cli(main)
