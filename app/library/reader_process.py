"""The process that reads one document: `python -m app.library.reader_process`.

Takes one JSON line on stdin (path, format, password, limits, recognition) and answers with JSON lines on stdout, one
for a page and a last one that says "done" or what went wrong. It puts itself under memory and CPU limits and ends with
its parent; `reader.py` watches the clock and kills it. It never imports torch, transformers, llama-index or gradio,
and never unpickles.
"""

import json
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from app.library.errors import DamagedDocumentError, DocumentError, ReadLimitExceeded
from app.library.formats import load_reader
from app.library.formats.extracted_page import ExtractedPage
from app.library.limits import ReadLimits, limit_this_process
from app.library.tesseract import TextRecognition
from app.limited_process import end_with_starter


def main() -> None:
    """Read what stdin asks for and write it to stdout; always ends with a "done" or "error" line."""
    # What a parser logs or prints must not get between the lines.
    answers, sys.stdout = sys.stdout, sys.stderr
    logging.disable(logging.CRITICAL)
    end_with_starter()
    request = json.loads(sys.stdin.readline())
    path = Path(request["path"])
    limits = ReadLimits(**request["limits"])
    try:
        # Libraries first: they are trusted, and loading them must not count against a small limit.
        read_pages = load_reader(request["format"])
        recognise = _load_recognition(request)
        limit_this_process(limits)
        pages = recognise(read_pages(path, request["password"], limits))
        _answer_pages(answers, pages, path, limits)
        _answer(answers, kind="done")
    except DocumentError as error:
        _answer(answers, kind="error", error=type(error).__name__, message=error.message)
    except ImportError as error:
        message = (
            f'Reading "{path.name}" needs a package that is not installed ({error.name}). Install requirements.txt.'
        )
        _answer(answers, kind="error", error=DocumentError.__name__, message=message)
    except MemoryError:
        message = (
            f'"{path.name}" needs more than {limits.memory_bytes >> 20:,} MiB of memory to read. It may be damaged; '
            "otherwise split it into parts."
        )
        _answer(answers, kind="error", error=ReadLimitExceeded.__name__, message=message)
    except RecursionError:
        message = f'"{path.name}" is nested too deeply to be read. Print it to a PDF file, and add that.'
        _answer(answers, kind="error", error=ReadLimitExceeded.__name__, message=message)
    except Exception as error:
        message = f'"{path.name}" is damaged and cannot be read ({type(error).__name__}). Get the file again.'
        _answer(answers, kind="error", error=DamagedDocumentError.__name__, message=message)


def _load_recognition(request: dict[str, Any]) -> Callable[[Iterator[ExtractedPage]], Iterator[ExtractedPage]]:
    """What recognises text in pages that have none, if that was asked for; otherwise they stay as they are."""
    if request.get("recognition") is None:
        return lambda pages: pages
    from app.library.formats.recognised_pages import recognised_pages

    recognition = TextRecognition(**request["recognition"])
    return lambda pages: recognised_pages(pages, Path(request["path"]), request["password"], recognition)


def _answer_pages(answers: TextIO, pages: Any, path: Path, limits: ReadLimits) -> None:
    page_count = text_characters = 0
    for page in pages:
        page_count += 1
        text_characters += len(page.text)
        if page_count > limits.document_pages or text_characters > limits.text_characters:
            passed = (
                f"{limits.document_pages:,} pages"
                if page_count > limits.document_pages
                else f"{limits.text_characters:,} characters"
            )
            raise ReadLimitExceeded(
                f'"{path.name}" has more than {passed}: at most {limits.document_pages:,} pages and '
                f"{limits.text_characters:,} characters are read. Split it into parts."
            )
        _answer(answers, kind="page", **asdict(page))


def _answer(answers: TextIO, **fields: Any) -> None:
    answers.write(json.dumps(fields) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
