"""`python -m ui`: serve the page, or all but it. `launch.py` runs this inside the environment that it has made."""

import argparse
import sys

from app.cli import run_cleanly
from app.flags import add_flags, add_server_flags
from app.settings import forget_api_key, set_library_defaults, settings_from
from app.web.free_port import ensure_port_is_free
from app.web.gradio_stubs import skip_gradio_stubs


def main(arguments: list[str] | None = None) -> int:
    """Parse the flags and serve until the user stops the program.

    Raises:
        UserFacingError: for a flag out of range, or a port that is taken.
    """
    parser = argparse.ArgumentParser(prog="launch.py serve", description="Quest Chat in the browser.")
    add_flags(parser)
    add_server_flags(parser)
    parsed = parser.parse_args(arguments)
    settings = settings_from(parsed)
    forget_api_key()
    # Asked first: a taken port should not cost the seconds that the imports below take.
    ensure_port_is_free(settings.host, settings.port)
    set_library_defaults(settings.offline)

    from app.chat.assistant import Assistant
    from app.web.server import serve

    build_page = None
    if not settings.headless:
        skip_gradio_stubs()
        from ui.layout import build_page

    assistant = Assistant(settings, remembers_model=parsed.model is None)
    if assistant.notice:
        print(assistant.notice, flush=True)
    try:
        serve(settings, assistant, build_page)
    finally:
        assistant.close()
    return 0


if __name__ == "__main__":
    sys.exit(run_cleanly(main))
