"""Keeps Gradio from making applications that nobody uses while a page is built.

A page makes one when it begins, when its block ends and when its queue is set, each with a hundred routes; only the
last is ever asked anything. They take half of the time that building the page does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.web.server import Page


def build_with_one_app(build_page: Callable[[], Page]) -> Page:
    """The page that `build_page` makes, with the application that it would have had in the end."""
    from gradio.routes import App

    create_app = App.create_app
    App.create_app = staticmethod(lambda *arguments, **options: None)
    try:
        page = build_page()
    finally:
        App.create_app = staticmethod(create_app)
    page.blocks.app = App.create_app(page.blocks, mcp_server=False)
    return page
