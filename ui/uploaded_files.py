"""Files that a browser names: checked before Gradio or a handler opens one.

A request may name any path for any input of any handler, and Gradio trusts it further than it should: it fetches what
looks like an address, and follows links. What may be opened is `app.web.uploads`' business; the folder is the one that
`app.web.server` has set for Gradio.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from app.web.uploads import UploadFolder
from ui.notices import shown_to_user


def upload_folder() -> UploadFolder:
    """Where this server's uploads are."""
    return UploadFolder(Path(get_upload_folder()))


class CheckedBlocks(gr.Blocks):
    """A page none of whose handlers is called with a path that is no upload."""

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *state: Any, **options: Any) -> Any:
        """As Gradio's, after the check."""
        uploads = upload_folder()
        with shown_to_user("documents"):
            for path in _named_paths(inputs):
                uploads.check(path)
        return await super().preprocess_data(block_fn, inputs, *state, **options)


def uploaded_paths(files: list[dict[str, Any] | str] | None) -> list[str]:
    """The paths that a `gr.File` hands to a handler without its preprocessing, each once.

    That preprocessing leaves an empty temporary file for each. One path can stand there twice: the same file, dropped
    from two folders.
    """
    return list(dict.fromkeys(file if isinstance(file, str) else file["path"] for file in files or ()))


def _named_paths(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("path"), str):
            yield value["path"]
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from _named_paths(part)
