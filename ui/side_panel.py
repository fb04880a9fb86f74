"""What stands beside the conversation: tabs, and places on the page for the custom elements behind them.

All that moves is in `assets/js/`: the tabs in `desk/side-tabs.js`, the document in `document/document-view.js`.
"""

import html

from app.chat.answers.answer import AnswerOptions
from app.settings import NEEDS_OUR_CACHE
from ui.raw_html import raw_html

_HANDLE = '<quest-side-handle role="separator" aria-orientation="vertical" tabindex="0"></quest-side-handle>'


def side_tabs() -> None:
    """Put the tabs Page, Reading and Race here, and the handle that drags the zone's width."""
    raw_html(f"{_HANDLE}<quest-side-tabs></quest-side-tabs>", js_on_load=None, elem_id="side-tabs")


def document_view() -> None:
    """Put the document view here."""
    raw_html("<quest-document-view></quest-document-view>", js_on_load=None, elem_id="document-view")


def live_strip() -> None:
    """Put the compact line here that tells how an answer reads while another tab is shown."""
    raw_html("<quest-live-strip empty></quest-live-strip>", js_on_load=None, elem_id="live-strip")


def absent_note(what: str) -> str:
    """Markup that says why something is not there where another engine answers.

    Args:
        what: it is, as the beginning of a sentence.
    """
    return f'<p class="absent-note">{html.escape(f"{what} {NEEDS_OUR_CACHE}")}</p>'


def race_panel(is_absent: bool = False) -> None:
    """Put the race of dense attention against Quest here, or why there is none."""
    default = AnswerOptions.token_budget
    note = absent_note("A race") if is_absent else ""
    raw_html(f'{note}<quest-race token-budget="{default}"></quest-race>', js_on_load=None, elem_id="race-panel")
