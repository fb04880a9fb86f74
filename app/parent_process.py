"""End this process when the one that started it does, however that ends.

A killed parent takes no leave: its children would go on, hold their port and their memory, and nobody would know. On
Linux the kernel tells the child; elsewhere a thread waits for the parent. Standard library only and quick to import.
Knows nothing of what the processes do.
"""

import ctypes
import os
import signal
import sys
import threading
import time

_PR_SET_PDEATHSIG = 1
_WATCH_S = 0.5
_WINDOWS_SYNCHRONIZE = 0x00100000
_WINDOWS_INFINITE = 0xFFFFFFFF


def end_with_parent(parent_pid: int) -> None:
    """Let this process get SIGTERM when its parent ends, or now if it has ended already.

    On Linux that is when the *thread* that started this process ends: it must live as long as it needs the child.

    Args:
        parent_pid: the process to end with, as it knows itself.
    """
    if sys.platform == "win32":
        _watch_windows_process(parent_pid)
    elif os.getppid() != parent_pid:
        # It has ended, or something stands between: only whether there is such a process can be asked then.
        _in_thread(lambda: _wait_while(lambda: _is_running(parent_pid)))
    elif not (sys.platform == "linux" and _ask_linux()):
        _in_thread(lambda: _wait_while(lambda: os.getppid() == parent_pid))
    elif os.getppid() != parent_pid:
        # It ended before the kernel was asked.
        _end()


def _ask_linux() -> bool:
    try:
        return ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0) == 0
    except (OSError, AttributeError):
        return False


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _wait_while(condition) -> None:
    while condition():
        time.sleep(_WATCH_S)


def _watch_windows_process(pid: int) -> None:
    kernel = ctypes.WinDLL("kernel32")
    kernel.OpenProcess.restype = ctypes.c_void_p
    handle = kernel.OpenProcess(_WINDOWS_SYNCHRONIZE, False, pid)
    if not handle:
        _end()
    _in_thread(lambda: kernel.WaitForSingleObject(ctypes.c_void_p(handle), _WINDOWS_INFINITE))


def _in_thread(wait) -> None:
    """Wait in a thread, then end the process."""

    def wait_and_end() -> None:
        wait()
        _end()

    threading.Thread(target=wait_and_end, name="parent-watch", daemon=True).start()


def _end() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
