"""What to tell when the data folder cannot be written to: it is read-only, no folder, or its disk is full."""

import errno
from pathlib import Path

_DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT)


def explain_storage_error(error: OSError, data_dir: Path) -> str:
    """A sentence that says what is wrong with the data folder and what to do; other errors speak for themselves."""
    if error.errno in _DISK_IS_FULL:
        # Such an error seldom names its file.
        return (
            f"The disk of the data folder {data_dir} is full. Free some space, or choose a folder on another disk with "
            "--data-dir."
        )
    path = Path(error.filename or "")
    if not path.is_relative_to(data_dir) or isinstance(error, FileNotFoundError):
        return str(error)
    place = "" if path == data_dir else f" ({path.relative_to(data_dir)})"
    return f"The data folder {data_dir} cannot be written to{place}: {error.strerror}. Choose another with --data-dir."
