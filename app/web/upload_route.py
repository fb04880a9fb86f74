"""The route that takes uploads, in the place of Gradio's own.

Gradio names an upload's folder by its content, so that two tabs with one file share it, and leaves what a browser has
sent of an upload that it then breaks off. Here each upload has a folder of its own, which goes with it. What the
browser sends and gets is Gradio's affair.
"""

import asyncio
import errno
import shutil
from typing import Any

import gradio
from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse
from gradio.route_utils import MultiPartException, upload_fn
from gradio.routes import file_upload_statuses
from starlette.requests import ClientDisconnect

from app.web.uploads import MAX_UPLOAD_BYTES, UploadFolder

UPLOAD_PATH = "/gradio_api/upload"


def add_upload(app: FastAPI, uploads: UploadFolder, blocks: gradio.Blocks) -> None:
    """Serve `UPLOAD_PATH`; call before the page is mounted.

    Args:
        app: gets the route.
        uploads: where files go.
        blocks: the page, which removes old files that nobody has asked it to read.
    """

    @app.post(UPLOAD_PATH)
    async def upload(request: Request, upload_id: str | None = None) -> Any:
        folder = uploads.new_folder()
        try:
            progress = file_upload_statuses if upload_id else None
            files, _, _ = await upload_fn(request, folder, MAX_UPLOAD_BYTES, upload_id, upload_progress=progress)
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            # The stream of its progress would otherwise wait for the rest for ever.
            if upload_id:
                file_upload_statuses.set_done(upload_id)
            if isinstance(error, asyncio.CancelledError):
                raise
            return _refusal(error)
        blocks.upload_file_set.update(files)
        return files


def _refusal(error: BaseException) -> PlainTextResponse:
    if isinstance(error, MultiPartException):
        return PlainTextResponse(error.message, 413 if "maximum allowed size" in error.message else 400)
    if isinstance(error, ClientDisconnect):
        # Nobody is there to read it.
        return PlainTextResponse("The upload was broken off.", 400)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return PlainTextResponse("The server's disk is full. Free some space and drop the file again.", 507)
    raise error
