"""What a process is told about its machine before numpy is there, and that each of it can be switched off."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from backwire_api import allocator
from backwire_server import machine
from backwire_server.machine import Tuning

AVX512 = "fpu avx2 avx512f avx512dq avx512bw avx512vl"


def test_numerical_libraries_get_one_thread_unless_told_otherwise() -> None:
    for given, threads, expected in (
        ({}, None, "1"),
        ({}, 3, "3"),
        ({"OMP_NUM_THREADS": "4"}, None, "4"),
        ({"OMP_NUM_THREADS": "4"}, 2, "2"),
    ):
        environment = dict(given)
        machine.limit_compute_threads(environment, threads)
        assert environment["OMP_NUM_THREADS"] == expected
        assert set(environment) == set(machine.THREAD_VARIABLES)


def test_workers_share_the_memory_of_a_gpu_unless_the_user_divided_it() -> None:
    for given, expected in (
        ({}, "false"),
        ({"XLA_PYTHON_CLIENT_PREALLOCATE": "true"}, "true"),
        ({"XLA_CLIENT_MEM_FRACTION": "0.4"}, None),
        ({"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.4"}, None),
    ):
        environment: dict[str, str] = dict(given)
        machine.prepare(Tuning(), environment)
        assert environment.get("XLA_PYTHON_CLIENT_PREALLOCATE") == expected


@pytest.mark.parametrize(
    ("found", "given", "expected"),
    [
        ({"vendor_id": "AuthenticAMD", "flags": AVX512}, {}, "SkylakeX"),
        ({"vendor_id": "AuthenticAMD", "cpu family": "26", "flags": AVX512}, {}, "SkylakeX"),
        ({"vendor_id": "AuthenticAMD", "cpu family": "25", "flags": AVX512}, {}, "Haswell"),
        ({"vendor_id": "AuthenticAMD", "cpu family": "25", "flags": "fpu avx2"}, {}, None),
        ({"vendor_id": "AuthenticAMD", "flags": AVX512}, {"OPENBLAS_CORETYPE": "Zen"}, "Zen"),
        ({"vendor_id": "AuthenticAMD", "flags": "fpu avx2 avx512f"}, {}, None),
        ({"vendor_id": "GenuineIntel", "flags": AVX512}, {}, None),
        ({}, {}, None),
    ],
)
def test_kernels_are_chosen_where_openblas_misjudges_the_cpu_and_the_user_has_not(
    found: dict[str, str], given: dict[str, str], expected: str | None
) -> None:
    environment = dict(given)
    machine.choose_kernels(environment, found)
    assert environment.get("OPENBLAS_CORETYPE") == expected


def test_the_cpu_is_that_of_the_kernels_first_processor(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(
        "processor\t: 0\nvendor_id\t: A\nflags\t\t: x y\npower management:\n\nprocessor\t: 1\nvendor_id\t: B\n"
    )
    assert machine.cpu(file) == {"processor": "0", "vendor_id": "A", "flags": "x y", "power management": ""}
    assert machine.cpu(tmp_path / "missing") == {}


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "10000 100000\n"}, 1),
        ({"cpu.max": "6400000 100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
    ],
)
def test_cores_are_those_of_the_process_and_no_more_than_the_containers_share(
    files: dict[str, str], cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert machine.usable_cores(tmp_path) == cores


def test_everything_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    monkeypatch.setattr(allocator, "tune", lambda: called.append("tune"))
    monkeypatch.setattr(machine, "choose_kernels", lambda *_: called.append("choose"))
    machine.prepare(Tuning(tune_blas=False, tune_allocator=False), {})
    assert called == []
    machine.prepare(Tuning(), {})
    assert called == ["choose", "tune"]


def test_all_this_happens_before_numpy_is_there() -> None:
    script = (
        "import os, sys\n"
        "from backwire_server import __main__, config, lifetime, machine\n"
        "from backwire_server.workers import worker\n"
        "machine.prepare(machine.Tuning(), {})\n"
        "assert 'numpy' not in sys.modules and 'grpc' not in sys.modules\n"
    )
    run(script)


def test_freed_memory_is_kept_for_the_next_large_message() -> None:
    """Counts page faults: those of the first use of a block, and none when the like of it is needed again."""
    script = (
        "import resource\n"
        "from backwire_api import allocator\n"
        "assert allocator.tune()\n"
        "def faults():\n"
        "    begin = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    bytearray(b'x') * (64 << 20)\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - begin\n"
        "assert faults() > 100\n"
        "assert faults() < 20, 'the block was given back'\n"
    )
    run(script)


def run(script: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment, timeout=60)
