"""The reading panel: a place on the page for the custom element that shows what the model looks at.

All that moves is in `assets/js/reading/reading-panel.js`, which takes its data from the telemetry routes of
`app.web.server`. Here is only what it must be told: which conversation, how many tokens a KV page holds, and how far
its estimates may be off.
"""

import html

from app.chat.presets import MISSED_OVER_ESTIMATE
from ui.raw_html import raw_html


class LivePanel:
    """The column beside the chat.

    Args:
        page_size: tokens of a KV page.
    """

    def __init__(self, page_size: int) -> None:
        self._page_size = page_size
        # Nothing to run on load: the browser builds a custom element wherever one appears.
        # Rendered where it stands: what comes before it on the page refers to it.
        self.panel = raw_html(self.markup(""), elem_id="live-panel", js_on_load=None, render=False)

    def markup(self, conversation_id: str) -> str:
        """The element for a conversation; with "" it shows its empty state and connects to nothing."""
        least, most = MISSED_OVER_ESTIMATE
        return (
            f'<quest-reading conversation-id="{html.escape(conversation_id)}" page-size="{self._page_size}" '
            f'missed-factor="{least:.2f} to {most:.2f}"></quest-reading>'
        )
