"""Makes the most of the machine: compute threads, BLAS kernels, allocator, cores. Imports no numpy.

What is set here takes effect when it is set before numpy is imported.
"""

import math
import os
import re
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path

from backwire_api import allocator

THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "PJRT_NPROC")  # the last is XLA's
KERNEL_VARIABLE = "OPENBLAS_CORETYPE"
RESERVE_VARIABLE = "XLA_PYTHON_CLIENT_PREALLOCATE"
SHARE_VARIABLES = {"XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"}  # the latter is the older name

_AVX512 = {"avx512f", "avx512dq", "avx512bw", "avx512vl"}
_ZEN4 = ("AuthenticAMD", "25")
_CPU = Path("/proc/cpuinfo")
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Tuning:
    """How a process uses its machine.

    Attributes:
        compute_threads: The threads of numerical libraries in each process; None leaves what the libraries' own
            environment variables say, and 1 where they say nothing.
        tune_blas: Whether OpenBLAS is told which kernels fit the CPU.
        tune_allocator: Whether freed memory is kept for the next large message.
        executor: What computes the sessions that name no executor: `numpy` or `jax`.
        precision: What products of float32 values are computed in, in the sessions that name none.
        jax_devices: Over how many devices the sessions that compute by JAX split their batches.
        group_sessions: Whether steps of sessions on JAX that wait at the same time are computed together.
    """

    compute_threads: int | None = None
    tune_blas: bool = True
    tune_allocator: bool = True
    executor: str = "numpy"
    precision: str = "float32"
    jax_devices: int = 1
    group_sessions: bool = False


def prepare(tuning: Tuning, environment: MutableMapping[str, str]) -> None:
    """Sets this process up, and by its environment those that it starts; to be called before numpy is imported."""
    limit_compute_threads(environment, tuning.compute_threads)
    share_accelerators(environment)
    if tuning.tune_blas:
        choose_kernels(environment, cpu())
    if tuning.tune_allocator:
        allocator.tune()


def limit_compute_threads(environment: MutableMapping[str, str], threads: int | None) -> None:
    """Gives numerical libraries `threads` threads each; for None one, unless their own variables say otherwise.

    Calls run on threads already: more under each of them would make all of them slower.
    """
    for variable in THREAD_VARIABLES:
        if threads is not None:
            environment[variable] = str(threads)
        environment.setdefault(variable, "1")


def share_accelerators(environment: MutableMapping[str, str]) -> None:
    """Has JAX take memory of a GPU as it needs it, unless the user chose already.

    Else its first process takes three quarters, and the server's other workers find no more than the rest.
    """
    if not SHARE_VARIABLES & environment.keys():
        environment.setdefault(RESERVE_VARIABLE, "false")


def choose_kernels(environment: MutableMapping[str, str], found: Mapping[str, str]) -> None:
    """Has OpenBLAS use the kernels that fit a CPU with AVX-512 that is not Intel's, unless the user chose already.

    OpenBLAS knows CPUs by their model numbers, and takes those of other makers that are newer than itself for older
    ones, without AVX-512. Intel's it recognises, some as better ones than this would choose. AMD's family 25 (Zen 4)
    does an AVX-512 instruction in two halves: there the kernels for AVX2 make products of large matrices 8 % faster,
    and those with 16 rows up to 1.7 times as fast.
    """
    if found.get("vendor_id") != "GenuineIntel" and set(found.get("flags", "").split()) >= _AVX512:
        halved = (found.get("vendor_id"), found.get("cpu family")) == _ZEN4
        environment.setdefault(KERNEL_VARIABLE, "Haswell" if halved else "SkylakeX")


def cpu(path: Path = _CPU) -> dict[str, str]:
    """Returns what the kernel says of the first processor, by field; nothing where it says nothing."""
    try:
        first = path.read_text().partition("\n\n")[0]
    except OSError:
        return {}
    return dict(re.findall(r"^(\S[^\t:]*?)\s*:[ \t]*(.*)$", first, re.MULTILINE))


def usable_cores(cgroup: Path = _CGROUP) -> int:
    """Returns how many cores this process may keep busy: those it may run on, at most its container's share."""
    cores = len(os.sched_getaffinity(0))
    quota = _quota(cgroup)
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def _quota(cgroup: Path) -> float | None:
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            limit, period = " ".join((cgroup / name).read_text() for name in names).split()
        except (OSError, ValueError):
            continue
        if re.fullmatch(r"[0-9]+", limit):  # neither "max" nor -1
            return int(limit) / int(period)
    return None
