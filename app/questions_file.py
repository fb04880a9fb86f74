"""The file of `ask --questions`: one question a line."""

from pathlib import Path

from app.errors import UserFacingError


def read_questions(path: Path) -> list[str]:
    """The questions, without blank lines.

    Raises:
        UserFacingError: the file cannot be read, or holds none.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserFacingError(f'The questions in "{path}" cannot be read: {error}.') from error
    questions = [line.strip() for line in lines if line.strip()]
    if not questions:
        raise UserFacingError(f'"{path}" holds no questions. Write one on each line.')
    return questions
