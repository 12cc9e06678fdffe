"""What a benchmark ran on: the lines that every benchmark prints above its table.

Without a name of the machine or a path in them, so that the output can be published as it is.
"""

from __future__ import annotations

import os
import platform
import resource
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

PACKAGES = ("numpy", "tensorflow", "keras", "jax", "torch", "diffusers")
#: Set, they change what the two libraries compute with; not set, the library decides.
SWITCHES = ("TF_ENABLE_ONEDNN_OPTS", "ONEDNN_MAX_CPU_ISA", "OMP_NUM_THREADS", "KERAS_BACKEND")


def processor() -> str:
    """The processor's name, as the system calls it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """How many cores this process may use, which a container or taskset can make fewer."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def versions() -> dict[str, str]:
    """The versions of Python and of those of ``PACKAGES`` that are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def accelerator() -> str | None:
    """The name of the GPU that the driver reports, None without one."""
    for folder in sorted(Path("/proc/driver/nvidia/gpus").glob("*")):
        for line in (folder / "information").read_text("utf-8").splitlines():
            if line.startswith("Model:"):
                return line.partition(":")[2].strip()
    return None


def peak_memory() -> int:
    """The most memory that this process has had, in bytes.

    Linux's ``ru_maxrss`` would begin with the memory of the process that started this one.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return 1024 * int(fields["VmHWM"].split()[0])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def description() -> str:
    """Processor, cores, memory, versions, switches and date, in a few lines."""
    memory = psutil.virtual_memory().total / 2**30
    switches = [f"{name}={os.environ[name]}" for name in SWITCHES if name in os.environ]
    lines = [
        f"processor: {processor()} ({platform.machine()}), {usable_cores()} cores, "
        f"{memory:.0f} GiB of memory",
        f"accelerator: {accelerator() or 'none'}",
        f"system: {platform.system()}",
        "versions: " + ", ".join(f"{name} {number}" for name, number in versions().items()),
        "switches: " + (", ".join(switches) or f"none of {', '.join(SWITCHES)} set"),
        f"date: {datetime.now(UTC):%Y-%m-%d}",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(description())
