"""Versions and machine: without them a number means nothing."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from functools import cache
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
    return device != "cpu" or _path_of_compiler() is not None


def _path_of_compiler() -> str | None:
    return shutil.which(os.environ.get("CXX", "c++"))


@cache
def compiler() -> str:
    """Return the version of the C++ compiler, which torch gives its own flags."""
    path = _path_of_compiler()
    if path is None:
        return "none"
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    return said.partition("\n")[0] or path
