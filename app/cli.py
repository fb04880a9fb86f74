"""The subcommands of the terminal: ask, bench, eval, doctor, completion.

Declares their arguments and calls what they do, importing it only then, so that `--help` is quick.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from app.completion import add_completion
from app.errors import UserFacingError, explain_import
from app.flags import ALL_FLAGS, API_KEY, ATTENTION, OFFLINE, TOKEN_BUDGET, add_flags
from app.parent_process import end_with_parent
from app.settings import forget_api_key, set_library_defaults, settings_from, take_launcher_pid


def main(arguments: list[str] | None = None) -> int:
    """Run one subcommand; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = build_parser(chosen=arguments[0] if arguments else None)
    parsed, unparsed = parser.parse_known_args(arguments)
    if unparsed and (not hasattr(parsed, "words") or any(word.startswith("-") for word in unparsed)):
        # The usage shown is that of the benchmark or evaluation that does not take them.
        getattr(parsed, "parser", parser).error(f"unrecognized arguments: {' '.join(unparsed)}")
    if unparsed:
        parsed.words += unparsed  # argparse takes free words in one go only; these stood behind a flag
    set_library_defaults(getattr(parsed, OFFLINE.name, False))
    return parsed.run(parsed)


def build_parser(chosen: str | None, whole: bool = False) -> argparse.ArgumentParser:
    """The parser of all subcommands; only the `chosen` one declares arguments that need an import.

    Args:
        chosen: the subcommand; None for none.
        whole: all declare theirs, as if each were chosen.
    """
    parser = argparse.ArgumentParser(prog="launch.py", description="Quest Chat in the terminal.")
    subcommands = parser.add_subparsers(required=True, metavar="SUBCOMMAND")
    ask = subcommands.add_parser("ask", help="answer questions about documents")
    bench = subcommands.add_parser("bench", help="measure speed")
    evaluation = subcommands.add_parser("eval", help="measure quality")
    doctor = subcommands.add_parser("doctor", help="what this machine has, and what is wrong")
    add_flags(doctor)
    doctor.add_argument("--json", action="store_true", help="one JSON object")
    doctor.add_argument("--verify", action="store_true", help="read all that is kept, and repair what can be repaired")
    if whole or chosen == "ask":
        _add_ask(ask)
    if whole or chosen == "bench":
        from app.measure.benchmarks.command import add_benchmarks, run_bench

        add_benchmarks(bench)
        bench.set_defaults(run=run_bench)
    if whole or chosen == "eval":
        from app.measure.evaluation.command import add_evaluations, run_eval

        add_evaluations(evaluation)
        evaluation.set_defaults(run=run_eval)
    doctor.set_defaults(run=_run_doctor)
    add_completion(subcommands)
    return parser


def _add_ask(ask: argparse.ArgumentParser) -> None:
    ask.add_argument(
        "words",
        nargs="*",
        metavar="DOCUMENT... QUESTION",
        help="documents (PDF, EPUB, Word, PowerPoint, OpenDocument, HTML, text, Markdown) and, last, the question",
    )
    ask.add_argument("--questions", type=Path, metavar="FILE", help="instead of a question: one a line, in one session")
    ask.add_argument("--json", action="store_true", help="one JSON object a question on stdout")
    ask.add_argument(
        "--url",
        metavar="URL",
        help="ask the Quest Chat that runs there, e.g. http://127.0.0.1:7860, instead of loading a model",
    )
    ask.add_argument(
        "--api-key",
        default=API_KEY.value_in(None),
        metavar="KEY",
        help="of the Quest Chat at --url, if it asks for one; better set QUEST_CHAT_API_KEY, which nobody else can see",
    )
    ask.add_argument("--password", help="of encrypted documents")
    ask.add_argument(
        "--ocr",
        action="store_true",
        help="recognise text in scans and in pages that are pictures, with Tesseract, if it is installed",
    )
    ask.add_argument(
        "--no-cache",
        action="store_true",
        help="read the documents afresh, and keep nothing of them or of what the model reads",
    )
    ask.add_argument("--system-prompt", metavar="TEXT")
    from app.chat.answers.answer import AnswerOptions

    options = AnswerOptions()
    ask.add_argument(
        "--max-new-tokens",
        type=int,
        default=options.max_new_tokens,
        metavar="N",
        help="the longest answer (default: %(default)s)",
    )
    ask.add_argument(
        "--temperature", type=float, default=options.temperature, help="0 is greedy (default: %(default)s)"
    )
    ask.add_argument("--top-p", type=float, default=options.top_p, help="(default: %(default)s)")
    ask.add_argument("--seed", type=int)
    add_flags(ask)
    ask.set_defaults(run=_run_ask, parser=ask)


def _run_ask(parsed: argparse.Namespace) -> int:
    forget_api_key()
    words = list(parsed.words)
    parsed.question = None
    if parsed.questions is None:
        if not words:
            raise UserFacingError('There is no question. Use: launch.py ask DOCUMENT... "QUESTION".')
        parsed.question = words.pop()
    parsed.documents = [Path(word) for word in words]
    if parsed.url is not None:
        from app.ask_url import run_ask_url

        _refuse_without_meaning(parsed)
        return run_ask_url(settings_from(parsed), parsed)
    from app.ask import run_ask

    return run_ask(settings_from(parsed), parsed)


def _refuse_without_meaning(parsed: argparse.Namespace) -> None:
    """Of what is said to `ask --url`, refuse what the app that runs there has decided already.

    Raises:
        UserFacingError: naming it. What the environment says is for other commands, and passed over.
    """
    names = ["password", "ocr", "no-cache"]
    names += [flag.name for flag in ALL_FLAGS if flag not in (ATTENTION, TOKEN_BUDGET)]
    fields = {f"--{name}": name.replace("-", "_") for name in names}
    said = [name for name, field in fields.items() if getattr(parsed, field) != parsed.parser.get_default(field)]
    if said:
        raise UserFacingError(
            f"{' and '.join(said)} cannot be said together with --url: the Quest Chat that runs there has its model "
            "and its library. Passwords and text recognition are given in its page."
        )


def _run_doctor(parsed: argparse.Namespace) -> int:
    from app.doctor import run_doctor

    return run_doctor(settings_from(parsed), as_json=parsed.json, verify=parsed.verify)


def run_cleanly(command: Callable[[], int]) -> int:
    """Run `command`; an error the user can mend becomes one line on stderr and exit code 1, Ctrl-C becomes 130.

    The process ends with `launch.py`, if that has started it.
    """
    launcher_pid = take_launcher_pid()
    if launcher_pid is not None:
        end_with_parent(launcher_pid)
    try:
        return command()
    except KeyboardInterrupt:
        print("\nquest-chat: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read our output has closed it, as `head` does; nothing is left to say.
        sys.stderr.close()
        return 1
    except (UserFacingError, ValueError, OSError) as error:
        # The last: files and folders that cannot be read or written.
        print(f"quest-chat: {error}", file=sys.stderr)
        return 1
    except ImportError as error:
        if (about_package := explain_import(error)) is None:
            raise
        print(f"quest-chat: {about_package}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(run_cleanly(main))
