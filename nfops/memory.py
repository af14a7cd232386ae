"""How much memory there is, asked before a large array is made, so that the answer is one line and not a crash."""

import sys
from pathlib import Path

from nfops.errors import MemoryLimitError

GIB = 1024**3


def available_bytes() -> int:
    """Memory that this process may still take: free on the machine, within its cgroup and `ulimit -v`."""
    return min(_free_on_machine(), _cgroup_limit(), _address_space_limit())


def require_memory(where: object, needed_bytes: int, what: str) -> None:
    """Raise MemoryLimitError unless `needed_bytes` are there; `what` names the thing that needs them."""
    available = available_bytes()
    if needed_bytes > available:
        needs = f"{what} needs {needed_bytes / GIB:,.1f} GiB, {available / GIB:.1f} GiB are available"
        raise MemoryLimitError(where, needs)


def _free_on_machine() -> int:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return sys.maxsize
    kilobytes = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return kilobytes[0] * 1024 if kilobytes else sys.maxsize


def _cgroup_limit() -> int:
    """The smallest limit on the way up from this process's cgroup (v2): Slurm sets it on an ancestor."""
    try:
        name = Path("/proc/self/cgroup").read_text(encoding="utf-8").strip().rpartition("::")[2]
    except OSError:
        return sys.maxsize
    root = Path("/sys/fs/cgroup")
    folder = root / name.lstrip("/")
    limits = [sys.maxsize]
    for level in (folder, *folder.parents):
        if level != root and root not in level.parents:
            break
        try:
            text = (level / "memory.max").read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit():
            limits.append(int(text))
    return min(limits)


def _address_space_limit() -> int:
    try:
        import resource
    except ImportError:  # not on Windows
        return sys.maxsize
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft
