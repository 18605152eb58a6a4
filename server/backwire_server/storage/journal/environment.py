"""What the bits of a replay depend on, besides the journal."""

import logging
import os
import platform
import sys
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from typing import Any

import numpy as np

from backwire_server.machine import KERNEL_VARIABLE, THREAD_VARIABLES, cpu
from backwire_server.sessions.executors import DEVICES

_LOG = logging.getLogger("backwire.storage")

NONE = "none"
JAX = "jax"

PROGRAMS = 2
"""Counts the changes of what is compiled by JAX that change bits of steps."""


def environment(*, devices: bool = False) -> Mapping[str, str]:
    """Returns by name what this process computes with; the kernel of BLAS is what it was told, where it was told.

    JAX is asked for its devices where it is loaded, or with `devices`.
    """
    told = f"{_version(JAX)}, programs {PROGRAMS}"
    if DEVICES.count > 1:
        told += f" on {DEVICES.count} devices"
    kind = _accelerator() if JAX in sys.modules or (devices and find_spec(JAX)) else ""
    return {**_machine(), JAX: f"{told} ({kind})" if kind else told}


@cache
def _machine() -> Mapping[str, str]:
    blas = _blas()
    return {
        "machine": platform.machine(),
        "cpu": cpu().get("model name", "unknown"),
        "cpu features": _features(),
        "numpy": np.__version__,
        "blas": f"{blas.get('name', 'unknown')} {blas.get('version', 'unknown')}",
        "blas kernel": os.environ.get(KERNEL_VARIABLE, "chosen by itself"),
        "compute threads": os.environ.get(THREAD_VARIABLES[0], "chosen by itself"),
        "numba": _version("numba"),
    }


def recorded() -> Mapping[str, str]:
    """Returns what a journal has to tell: JAX counts once a session of this process computes by it."""
    return {name: value for name, value in environment().items() if name != JAX or JAX in sys.modules}


def differences(then: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Returns what differs, as text; empty when nothing does."""
    names = sorted({*then, *now} - ({JAX} - then.keys()))
    changed = [name for name in names if then.get(name) != now.get(name)]
    return ", ".join(f"{name} was {then.get(name, NONE)} and is {now.get(name, NONE)}" for name in changed)


def _blas() -> Mapping[str, Any]:
    config: Any = np.show_config(mode="dicts")
    found: Mapping[str, Any] = config.get("Build Dependencies", {}).get("blas", {})
    return found


def _features() -> str:
    """Returns what numpy uses of the processor; one model name may stand for many, as in virtual machines."""
    config: Any = np.show_config(mode="dicts")
    found: list[str] = config.get("SIMD Extensions", {}).get("found", [])
    return " ".join(found) or NONE


@cache
def _accelerator() -> str:
    """Returns which device JAX computes on; empty for processors, and where JAX is broken, which others need not be."""
    try:
        from backwire_server.xla.sharding import devices  # it takes an extra
    except (ImportError, RuntimeError, AttributeError) as error:
        _LOG.warning("JAX is installed and cannot be imported: %s", error)
        return ""
    return "" if not (found := devices()) or found[0].platform == "cpu" else str(found[0].device_kind)


@cache
def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return NONE
