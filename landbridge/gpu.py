"""What NVIDIA's driver says of this machine's GPUs."""

from __future__ import annotations

import shutil
import subprocess

from landbridge.errors import InputError

ANSWER_SECONDS = 10.0  # nvidia-smi hangs where its driver does


def gpus(*fields: str) -> list[list[str]]:
    """For each GPU the `fields` of `nvidia-smi --query-gpu`, as in ["Orin (nvgpu)", "8.7"].

    Raises:
        InputError: There is no driver, it hangs, or it names no GPU.
    """
    smi = shutil.which("nvidia-smi")
    if smi is None:
        raise InputError("nvidia-smi", "is not installed: no NVIDIA driver", "use the CPU")
    query = [smi, f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    try:
        asked = subprocess.run(query, capture_output=True, text=True, timeout=ANSWER_SECONDS)
    except subprocess.TimeoutExpired as error:
        problem = f"does not answer in {ANSWER_SECONDS:g} s: its driver hangs"
        raise InputError("nvidia-smi", problem, "restart the machine, or use the CPU") from error
    found = [[part.strip() for part in line.split(",")] for line in asked.stdout.splitlines()]
    if asked.returncode != 0 or not found or any(len(values) != len(fields) for values in found):
        said = (asked.stderr or asked.stdout).strip()
        raise InputError("nvidia-smi", f"names no GPU: {said:.200}", "mend the driver, or use the CPU")
    return found
