"""`completion`: a script by which a shell completes the command line of `launch.py`, made from its parsers.

The script is made once and asks nothing of this program afterwards. `./launch.py` is completed by each shell, `python
launch.py` by zsh on its own, by bash as it is told here, and by fish not at all.
"""

from __future__ import annotations

import argparse

from app.flags import add_flags, add_server_flags

SHELLS = ("bash", "zsh", "fish")
_PROGRAM = "launch.py"
_PREFIX = "_quest_chat"
# What `launch.py` does by itself.
_LAUNCHER_COMMANDS = {"serve": "the app in the browser", "test": "run the tests"}
_BASH_AFTER_PYTHON = f"""
# python launch.py ...
{_PREFIX}_python() {{
  if [[ "${{COMP_WORDS[1]##*/}}" == {_PROGRAM} && $COMP_CWORD -gt 1 ]]; then
    COMP_WORDS=("${{COMP_WORDS[@]:1}}")
    COMP_CWORD=$((COMP_CWORD - 1))
    _shtab_{_PREFIX}
  fi
}}
complete -o bashdefault -o default -o filenames -F {_PREFIX}_python python python3
"""


def add_completion(subcommands: argparse._SubParsersAction) -> None:
    """Declare the subcommand."""
    parser = subcommands.add_parser("completion", help="print a script by which a shell completes this command line")
    parser.add_argument("shell", choices=SHELLS, help="which shell")
    parser.set_defaults(run=lambda parsed: _print_script(parsed.shell))


def completion_script(shell: str) -> str:
    """The script for one of `SHELLS`.

    Raises:
        ImportError: shtab is not installed.
    """
    import shtab

    from app.cli import build_parser

    parser = build_parser(chosen=None, whole=True)
    parser.prog = _PROGRAM
    parser.add_argument("--version", action="store_true", help="which Quest Chat this is")
    subcommands = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    for name, what in _LAUNCHER_COMMANDS.items():
        command = subcommands.add_parser(name, help=what)
        if name == "serve":
            add_flags(command)
            add_server_flags(command)
    _complete_files(parser, shtab.FILE)
    return shtab.complete(parser, shell, root_prefix=_PREFIX) + (_BASH_AFTER_PYTHON if shell == "bash" else "")


def _complete_files(parser: argparse.ArgumentParser, files: object) -> None:
    """Mark the arguments that are paths, here and in the subcommands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _complete_files(command, files)
        elif action.metavar in ("FILE", "DIR", "PATH", "DOCUMENT... QUESTION") or action.dest == "model":
            action.complete = files


def _print_script(shell: str) -> int:
    print(completion_script(shell))
    return 0
