"""One process among others: its lock, its tie to supervisord, its privileges."""

from __future__ import annotations

import ctypes
import fcntl
import os
import pwd
import signal
import sys
import time
from pathlib import Path
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_CLONE_NEWUSER: Final = 0x10000000


class Taken(RuntimeError):
    """Somebody else holds the lock."""


def hold(path: Path, wait_s: float = 0) -> int:
    """Lock ``path`` for the life of this process and of all that inherit the descriptor returned.

    The file says who holds it. Raises Taken after ``wait_s``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    os.set_inheritable(descriptor, True)
    until = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() >= until:
                holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
                os.close(descriptor)
                raise Taken(f"{path.stem} already runs, pid {holder} (holds {path})") from None
            time.sleep(0.05)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def holder(path: Path) -> int | None:
    """The pid that holds the lock, or None where nobody does."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(descriptor, 20, 0).strip()
        return int(text) if text.isdigit() else None
    else:
        return None
    finally:
        os.close(descriptor)


def die_with_supervisor(run: Path, with_signal: int = signal.SIGTERM) -> None:
    """Be signalled when supervisord dies, so that its successor does not start doubles (Linux; after any change of
    uid, which clears this). ``run`` holds its pid file."""
    if "SUPERVISOR_ENABLED" not in os.environ or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, with_signal, 0, 0, 0)
    try:
        supervisor = int((run / "supervisord.pid").read_text())
    except (OSError, ValueError):
        return
    if os.getppid() != supervisor:  # it died before we asked
        sys.exit(1)


def die_with(parent: int) -> None:
    """Be killed when the process that started this one dies (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before we asked
            sys.exit(1)


def drop_root(*owned: Path) -> None:
    """Cease to be root, for a server that refuses to run as root; ``owned`` stays this process's own.

    A user namespace, where the kernel grants one: files stay root's, so that the checkout may lie anywhere. Else
    (most containers) an unprivileged user who must be able to reach the checkout. Nothing to do for a plain user.
    """
    if os.geteuid() != 0:
        return
    user = _unprivileged_user()
    owners = {path.stat().st_uid for path in owned}
    if owners <= {0} and _enter_namespace(user):
        return
    for path in owned:
        os.chown(path, user.pw_uid, user.pw_gid)
    os.setgroups([])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)


def _unprivileged_user() -> pwd.struct_passwd:
    users = {user.pw_name: user for user in pwd.getpwall() if user.pw_uid}
    for name in ("postgres", "nobody", *users):
        if name in users:
            return users[name]
    raise RuntimeError("expected any user but root in /etc/passwd: Postgres refuses to run as root")


def _enter_namespace(user: pwd.struct_passwd) -> bool:
    group = os.getegid()  # inside, before the map, it would already be nobody's
    if sys.platform != "linux" or ctypes.CDLL(None).unshare(_CLONE_NEWUSER) != 0:
        return False
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user.pw_uid} 0 1")
    Path("/proc/self/gid_map").write_text(f"{user.pw_gid} {group} 1")
    return True


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not yet collected by its parent does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return sys.platform != "linux"


def command(pid: int) -> str:
    """The command line of a process, empty where it cannot be told."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return "" if sys.platform == "linux" else "supervisord"
