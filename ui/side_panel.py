"""What stands beside the conversation: tabs, and places on the page for the custom elements behind them.

All that moves is in `assets/js/`: the tabs in `side-tabs.js`, the document in `document-view.js`.
"""

from app.chat.answers.answer import AnswerOptions
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


def race_panel() -> None:
    """Put the race of dense attention against Quest here."""
    default = AnswerOptions.token_budget
    raw_html(f'<quest-race token-budget="{default}"></quest-race>', js_on_load=None, elem_id="race-panel")
