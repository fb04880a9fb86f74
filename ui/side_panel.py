"""The document beside the conversation: a place on the page for the custom element that shows it.

What it shows it takes from the routes for documents; all that moves is in `assets/js/document-view.js`. It shares its
column with the live panel, by tabs (`assets/js/side-tabs.js`).
"""

from ui.raw_html import raw_html


def column_tabs() -> None:
    """Put the tabs of the column here."""
    raw_html("<quest-column-tabs></quest-column-tabs>", js_on_load=None, elem_id="column-tabs")


def document_view() -> None:
    """Put the document view here."""
    raw_html("<quest-document-view></quest-document-view>", js_on_load=None, elem_id="document-view")
