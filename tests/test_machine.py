import os
import sys
from pathlib import Path

import pytest

from processes import run_python
from tectum.machine import cpu_threads


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells page faults in this way")
class TestFreedMemory:
    CODE = """
import resource, sys
import numpy as np
from tectum.machine import keep_freed_memory
keep_freed_memory()
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    buffers = [np.ones((1 << 20) * size, np.float32) for size in (40, 10, 40)]
    del buffers
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1]) // 1024)
"""

    @pytest.mark.skipif(not hasattr(os, "confstr") or "CS_GNU_LIBC_VERSION" not in os.confstr_names, reason="no glibc")
    def test_is_used_again(self):
        first, second, resident = map(int, run_python(self.CODE, NUMPY_MADVISE_HUGEPAGE="0").split())
        assert second < first / 10
        assert resident > 360

    def test_is_given_back_where_the_environment_says_so(self):
        *_, resident = map(int, run_python(self.CODE, MALLOC_TRIM_THRESHOLD_="100000").split())
        assert resident < 200


def test_threads(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert cpu_threads() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "5,2")
    assert cpu_threads() == 5
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert 1 <= cpu_threads() <= (os.cpu_count() or 1)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="there is no affinity here")
@pytest.mark.parametrize(
    ("siblings", "limit", "expected"),
    [
        (["0-1", "0-1", "2-3", "2-3"], "max 100000", 2),
        (["0", "1", "2", "3"], "max 100000", 4),
        (["0", "1", "2", "3"], "150000 100000", 1),
        (["0", "1", "2", "3"], "50000 100000", 1),
        (["0", "1", "2", "3"], None, 4),
        (None, "300000 100000", 3),
    ],
)
def test_threads_are_the_physical_cores_of_this_process(siblings, limit, expected, monkeypatch):
    def read(path):
        if path.name == "cpu.max" and limit:
            return limit
        if path.name == "thread_siblings_list" and siblings:
            return siblings[int(path.parts[-3].removeprefix("cpu"))]
        raise FileNotFoundError(path)

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    monkeypatch.setattr(Path, "read_text", read)
    assert cpu_threads() == expected
