"""The one exception that the app shows to its user.

`app` raises it, `ui` turns it into a `gr.Error`, the command line prints it and exits. Nothing here knows
where the sentence is shown.
"""


class UserFacingError(Exception):
    """Something went wrong that the user can understand and act on.

    Args:
        message: a full sentence, or two, that says what is wrong and what to do about it.
    """

    def __init__(self, message: str):
        super().__init__(message)
        self.message = message
