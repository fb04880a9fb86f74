"""The one exception that the app shows to its user, and what becomes of those that nobody foresaw.

`app` raises it, `ui` turns it into a `gr.Error`, the command line prints it and exits. Nothing here knows
where the sentence is shown.
"""

import logging
import sys

# What is missing of these is a fault of ours, and no installation would mend it.
_OWN_PACKAGES = ("app", "kernels", "quest_core", "ui")
_log = logging.getLogger(__name__)


class UserFacingError(Exception):
    """Something went wrong that the user can understand and act on.

    Args:
        message: a full sentence, or two, that says what is wrong and what to do about it.
    """

    def __init__(self, message: str):
        super().__init__(message)
        self.message = message


def explain_import(error: ImportError) -> UserFacingError | None:
    """What to tell the user of a package that is not installed, or not as wanted; None if it is not about one."""
    package = (error.name or "").partition(".")[0]
    if package in _OWN_PACKAGES or package in sys.stdlib_module_names:
        return None
    what = f"The package {package} is" if package else "A package is"
    if not isinstance(error, ModuleNotFoundError):
        reason = (str(error).strip().splitlines() or ["it cannot be imported"])[0]
        what += f" missing, or not in the version that is needed ({reason})"
    else:
        what += " not installed"
    return UserFacingError(f"{what}. Run `python -m pip install -r requirements.txt`, or start without --skip-install.")


def explain(error: Exception, what_failed: str) -> UserFacingError:
    """What to tell the user of any exception; of one that nobody foresaw the traceback goes to the log.

    Args:
        error: what was raised.
        what_failed: a noun, e.g. "The answer".
    """
    if isinstance(error, UserFacingError):
        return error
    if isinstance(error, ImportError) and (about_package := explain_import(error)) is not None:
        return about_package
    # Where nothing is configured, Python logs an error to the terminal.
    _log.error("%s failed", what_failed, exc_info=error)
    reason = (str(error).strip().splitlines() or [""])[0]
    return UserFacingError(
        f"{what_failed} failed on an error in Quest Chat ({': '.join(filter(None, (type(error).__name__, reason)))}). "
        "Try again; if it comes back, start Quest Chat anew. The terminal has the details."
    )
