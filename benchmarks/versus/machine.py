"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["machine"]

_FEATURES = (
    "avx2", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "avx512_vbmi2", "amx_int8",
)  # fmt: skip
_TOOLS = ("snncc", "numpy", "onnxruntime", "torch", "spikingjelly")


def machine() -> dict[str, Any]:
    """CPU, what of its instruction sets matters here, and versions of the packages."""
    about = _cpuinfo()
    flags = about.get("flags", "").split()
    return {
        "cpu": about.get("model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "features": [name for name in _FEATURES if name in flags],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": _versions(),
    }


def _cpuinfo() -> dict[str, str]:
    """Linux's description of the first core; empty elsewhere."""
    with suppress(OSError):
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0]
        lines = [line.partition(":") for line in first.splitlines()]
        return {key.strip(): value.strip() for key, _, value in lines}
    return {}


def _versions() -> dict[str, str]:
    found = {}
    for name in _TOOLS:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
