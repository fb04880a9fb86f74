"""Paths that a browser names: refused, before Gradio or a handler opens one.

A request may name any path for any input of any handler, and Gradio trusts it further than it should: it fetches what
looks like an address, and follows links. The page's own files come as bytes (`app.web.document_upload`), so that no
input has a path.
"""

from collections.abc import Iterator
from typing import Any

import gradio as gr

from app.errors import UserFacingError
from ui.notices import shown_to_user


class CheckedBlocks(gr.Blocks):
    """A page none of whose handlers is called with a path."""

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *state: Any, **options: Any) -> Any:
        """As Gradio's, after the check."""
        with shown_to_user("documents"):
            if next(_named_paths(inputs), None) is not None:
                raise UserFacingError("Nothing is opened here by its path. Drop the file into the page.")
        return await super().preprocess_data(block_fn, inputs, *state, **options)


def _named_paths(value: Any) -> Iterator[object]:
    if isinstance(value, dict):
        if "path" in value:
            yield value["path"]
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from _named_paths(part)
