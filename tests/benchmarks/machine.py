"""The facts that figures depend on: the machine, the libraries and the commit."""

import ctypes
import importlib
import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.server_process import ROOT, environment

PACKAGES = ("numpy", "grpc", "google.protobuf", "torch", "jax")


def facts(peer_python: str) -> dict[str, Any]:
    """Returns the facts of this machine, and of the environments of Backwire and of its peers."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": _git("rev-parse", "HEAD"),
        "changed": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "system": platform.platform(),
        "cpu": _cpu_field("model name"),
        "cpus": os.cpu_count(),
        "avx512": "avx512f" in _cpu_field("flags").split(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "backwire": _environment_facts(sys.executable),
        "peers": _environment_facts(peer_python),
    }


def _environment_facts(python: str) -> dict[str, Any]:
    command = [python, "-m", "tests.benchmarks.machine"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment())
    return json.loads(done.stdout) if done.returncode == 0 else {"unavailable": done.stderr.strip()[-200:]}


def _own_facts() -> dict[str, Any]:
    """Returns the versions in this environment, with numpy set up as the server sets it up."""
    if importlib.util.find_spec("backwire_server") and importlib.util.find_spec("grpc"):
        importlib.import_module("tests.benchmarks.contender_engine")
    found: dict[str, Any] = {"python": platform.python_version()}
    for name in PACKAGES:
        if importlib.util.find_spec(name.partition(".")[0]):
            found[name] = importlib.import_module(name).__version__
    return {**found, "blas": _blas()}


def _blas() -> str:
    """Returns what OpenBLAS says of itself, with the kernels that it chose; else what numpy was built with."""
    import numpy as np

    libraries = Path(np.__file__).parent.parent / "numpy.libs"
    for path in libraries.glob("libscipy_openblas*.so"):
        library = ctypes.CDLL(str(path))
        for suffix in ("64_", ""):
            tell = getattr(library, f"scipy_openblas_get_config{suffix}", None)
            if tell is not None:
                tell.restype = ctypes.c_char_p
                return str(tell().decode())
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return f"{blas['name']} {blas['version']}"


def _cpu_field(name: str) -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return platform.processor()


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False, cwd=ROOT)
    return done.stdout.strip()


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_own_facts()))
