"""What every test run needs: one BLAS thread per process, and property tests that no slow machine fails."""

import os

# Before anything imports numpy: pytest-xdist has a process per core already, and servers that tests start inherit it.
for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

from hypothesis import HealthCheck, settings  # noqa: E402

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("default"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


def pytest_xdist_auto_num_workers() -> int:
    """Half as many again as there are processors: a fifth of the time of one goes by waiting for servers and leases."""
    return max(len(os.sched_getaffinity(0)) * 3 // 2, 1)
