"""Versions and machine: without them a number means nothing."""

from __future__ import annotations

import os
import platform
import shutil
from importlib.metadata import version

import torch


def environment() -> dict[str, str]:
    """Return what a result depends on besides the code that it is about."""
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "gradref": version("gradref"),
        "torch": str(torch.__version__),  # its metadata leave out the CUDA that it is built for
        "numpy": version("numpy"),
        "python-flint": version("python-flint"),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpu capability": torch.backends.cpu.get_cpu_capability(),
        "cuda device": cuda,
        "cuda": str(torch.version.cuda or "none"),
    }


def has_compiler(device: str) -> bool:
    """Return whether kernels for a device can be built: those for a CPU need a C++ compiler."""
    return device != "cpu" or shutil.which(os.environ.get("CXX", "c++")) is not None
