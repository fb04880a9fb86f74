"""The one exception that the app shows to its user, and what becomes of those that nobody foresaw.

`app` raises it, `ui` turns it into a `gr.Error`, the command line prints it and exits. Nothing here knows
where the sentence is shown.
"""

import logging

_log = logging.getLogger(__name__)


class UserFacingError(Exception):
    """Something went wrong that the user can understand and act on.

    Args:
        message: a full sentence, or two, that says what is wrong and what to do about it.
    """

    def __init__(self, message: str):
        super().__init__(message)
        self.message = message


def explain(error: Exception, what_failed: str) -> UserFacingError:
    """What to tell the user of any exception; of one that nobody foresaw the traceback goes to the log.

    Args:
        error: what was raised.
        what_failed: a noun, e.g. "The answer".
    """
    if isinstance(error, UserFacingError):
        return error
    # Where nothing is configured, Python logs an error to the terminal.
    _log.error("%s failed", what_failed, exc_info=error)
    reason = (str(error).strip().splitlines() or [""])[0]
    return UserFacingError(
        f"{what_failed} failed on an error in Quest Chat ({': '.join(filter(None, (type(error).__name__, reason)))}). "
        "Try again; if it comes back, start Quest Chat anew. The terminal has the details."
    )
