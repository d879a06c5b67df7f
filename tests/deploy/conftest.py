"""A pretended NVIDIA driver, for what depends on its answers."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a program of that name first on the PATH, which answers as told, and TensorRT 10.3.0 among the packages."""

    def install(answer: str, code: int = 0, tensorrt: str | None = "10.3.0") -> None:
        (tmp_path / "bin").mkdir(exist_ok=True)
        program = tmp_path / "bin" / "nvidia-smi"
        program.write_text(f"#!/bin/sh\nprintf '%s\\n' '{answer}'\nexit {code}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        real = importlib.metadata.version

        def version(name: str) -> str:
            if name != "tensorrt":
                return real(name)
            if tensorrt is None:
                raise importlib.metadata.PackageNotFoundError(name)
            return tensorrt

        monkeypatch.setattr(importlib.metadata, "version", version)

    return install
