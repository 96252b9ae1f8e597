"""Code in processes of its own."""

import os
import subprocess
import sys


def run_python(code, **environment):
    """Run code in a new process with nothing of pytest in it; gives its standard output."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MALLOC_", "GLIBC_", "ORT_"))}
    result = subprocess.run(
        [sys.executable, "-c", code], env=kept | environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert result.returncode == 0, result.stderr
    return result.stdout
