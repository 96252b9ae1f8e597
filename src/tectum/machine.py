"""What this machine has: processor cores for one network, free memory, and an allocator that can be told to keep it."""

import ctypes
import os
import sys
from functools import cache
from pathlib import Path

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4

_UNKNOWN_MEMORY = 4 * 2**30


def cpu_threads() -> int:
    """Threads for one network on the CPU: OMP_NUM_THREADS, or the physical cores that this process may use.

    A second thread on a core brings nothing to matrix products, and threads beyond a container's share wait.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    processors = os.sched_getaffinity(0)
    topology = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    try:
        cores = len({Path(topology.format(number)).read_text() for number in processors})
    except OSError:
        cores = len(processors)
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        share = max(1, int(quota) // int(period))
    except (OSError, ValueError):  # not in a container, or one without a limit ("max")
        share = cores
    return min(cores, share)


@cache
def keep_freed_memory() -> None:
    """Have this process keep the memory that it frees, up to 1 GiB at a time, for what it allocates next.

    The C library of most Linux systems gives each large buffer back to the kernel, which clears every page anew when
    the next run needs it: at 640x480 a quarter to a half of the time of MAFS in torch. It is left as it is where the
    environment configures it, and on other systems nothing is done.
    """
    configured = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if sys.platform != "linux" or configured:
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # musl has none
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**30)


def free_memory() -> int:
    """Bytes of main memory that can still be used, within the limit of the control group if there is one.

    Linux tells it. Elsewhere half of the physical memory is taken for free; 4 GiB where even that is unknown.
    """
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        try:
            free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
        except (AttributeError, ValueError, OSError):
            free = _UNKNOWN_MEMORY
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = (int((group / name).read_text(encoding="ascii")) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):  # no control group, or one without a limit ("max")
        return free
    return min(free, max(0, limit - used))
