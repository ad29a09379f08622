"""How a session process is ended: at once, or first asked where it has a device to give back.

A session that holds a device catches SIGTERM and gives the device back then (``sessions/samba``);
any other leaves SIGTERM as it is. The kernel knows which, so nobody need be told.
Promises: when a call returns, the process has ended or was killed, and does nothing of its own any
more. Does not: wait for it (its status stays for who started it); count what it used.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Final

#: How long a session may take to give its device back. Ray kills a stopped job after 3 s.
GRACE_S: Final = 1.0
#: How often it is looked whether a process has ended.
_POLL_S: Final = 0.01
#: How often a session looks whether its watcher is gone.
_WATCH_S: Final = 1.0
#: prctl(2) option: the signal this process gets when its parent dies. Source: linux/prctl.h.
_PR_SET_PDEATHSIG: Final = 1


def end_process(pid: int) -> bool:
    """Ask a child that catches SIGTERM, then kill it; it stays to be waited for.

    Returns:
        Whether the child was asked, and so chose its own status.
    """
    is_asked = not _has_ended(pid) and _catches_sigterm(pid)
    if is_asked:
        os.kill(pid, signal.SIGTERM)
        latest_s = time.monotonic() + GRACE_S
        while not _has_ended(pid) and time.monotonic() < latest_s:
            time.sleep(_POLL_S)
    os.kill(pid, signal.SIGKILL)
    return is_asked


def die_with_parent(parent_pid: int) -> None:
    """Ask the kernel to kill this process when its parent ends, however it ends (Linux)."""
    _on_death_of_parent(signal.SIGKILL)
    if os.getppid() != parent_pid:
        raise SystemExit("the parent process is gone")


def give_device_back_with_parent(parent_pid: int) -> None:
    """From now on the parent's end asks this process first, if it catches SIGTERM.

    A thread kills it where it does not end by that. One that hangs in native code and keeps the
    interpreter to itself is beyond both, and left to its scheduler.
    """
    if signal.getsignal(signal.SIGTERM) in (signal.SIG_DFL, signal.SIG_IGN, None):
        return
    _on_death_of_parent(signal.SIGTERM)
    threading.Thread(target=_kill_orphan, args=(parent_pid,), daemon=True).start()


def _kill_orphan(parent_pid: int) -> None:
    while os.getppid() == parent_pid:
        time.sleep(_WATCH_S)
    # Once more: the kernel's signal is lost if the parent died before it was asked for.
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os.kill(os.getpid(), signal.SIGKILL)


def _on_death_of_parent(number: signal.Signals) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def _catches_sigterm(pid: int) -> bool:
    """Linux tells of each process which signals it handles; elsewhere no session has a device."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return False
    for line in status.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "SigCgt":
            return bool(int(value, 16) >> (signal.SIGTERM - 1) & 1)
    return False


def _has_ended(pid: int) -> bool:
    """Whether a child has ended; its status is left for who waits for it."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
