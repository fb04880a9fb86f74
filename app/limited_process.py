"""Python processes that do what this one must not risk: started bare, and put under limits by themselves.

What comes from anywhere, a document or a model's template, may hang, swell or crash its process; this one holds the
user's conversations and the model. Knows nothing of what such a process does, or of when to end it.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from app.parent_process import end_with_parent

_PROJECT_FOLDER = Path(__file__).resolve().parents[1]
# What an interpreter may need to start at all; no keys, tokens or proxies of the user's.
_KEPT_VARIABLES = ("SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TESSDATA_PREFIX")


def start_python(module: str, passed_on: Callable[[str], bool] = lambda name: False) -> "subprocess.Popen[bytes]":
    """Run a module of the project with pipes as its stdin and stdout; whoever starts it ends it.

    The calling thread must live as long as the process, which ends with it at the latest; see `end_with_starter`.

    Args:
        module: its name.
        passed_on: says of a variable of the environment's whether the process gets it, too.
    """
    environment = {
        name: value for name, value in os.environ.items() if name.upper() in _KEPT_VARIABLES or passed_on(name)
    }
    # The child finds the packages that this process finds, also in an interpreter that was set up by hand.
    search_path = [str(_PROJECT_FOLDER), *(entry for entry in sys.path if entry)]
    environment |= {"PYTHONPATH": os.pathsep.join(search_path), "PYTHONUTF8": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", module, str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=_PROJECT_FOLDER,
        env=environment,
    )


def end_with_starter() -> None:
    """Let the calling process, which `start_python` has started, end with the one that did."""
    end_with_parent(int(sys.argv[1]))


def limit_this_process(memory_bytes: int, cpu_s: int) -> None:
    """Put the calling process under limits of memory and CPU time, for good, and forbid it to write files.

    Does nothing where the platform has no resource limits (Windows).

    Args:
        memory_bytes: address space (Linux; elsewhere it may have no effect).
        cpu_s: seconds of CPU time.
    """
    try:
        import resource
    except ImportError:
        return
    wanted = {
        "RLIMIT_AS": memory_bytes,
        "RLIMIT_CPU": cpu_s,
        "RLIMIT_FSIZE": 0,
        "RLIMIT_CORE": 0,
    }
    for name, value in wanted.items():
        kind = getattr(resource, name, None)
        if kind is None:
            continue
        _, hard = resource.getrlimit(kind)
        allowed = value if hard == resource.RLIM_INFINITY else min(value, hard)
        try:
            resource.setrlimit(kind, (allowed, allowed))
        except (ValueError, OSError):
            # macOS refuses some limits; what whoever started the process enforces remains.
            continue
