"""The web server: the page, its files, the telemetry stream, and a health check; without the page, library and API.

The page is Gradio, mounted on a FastAPI app; what it looks like belongs to `ui`, which hands over a function that
builds it. Telemetry does not go through Gradio's queue: its events come dozens of times a second, and the queue is for
answers. The page is served before the model is loaded, and shows how far loading has come.
"""

from __future__ import annotations

import json
import mimetypes
import os
import secrets
import webbrowser
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.errors import UserFacingError
from app.store.data_folder import explain_storage_error
from app.web.access.key import AccessKey, open_access_key
from app.web.uploads import UploadFolder

if TYPE_CHECKING:
    import gradio
    from fastapi import FastAPI

    from app.chat.assistant import Assistant
    from app.settings import AppSettings

ASSETS_FOLDER = Path(__file__).resolve().parents[2] / "assets"
# Below this address, so that Gradio's own /assets and /static stay its own.
PAGE_FILES_PATH = "/quest"
_PAGE_FILE_FOLDERS = ("css", "js", "icons")
# The panel redraws at most this often; a faster model only makes it skip steps.
_STEPS_PER_S = 30
# How long a stream may be silent. Proxies close silent ones, and a vanished browser is noticed only on sending.
_KEEP_ALIVE_S = 10.0
# A stream waits for its next event in a thread of its own pool, so that open pages never starve Gradio's handlers.
_MAX_STREAMS = 64


@dataclass(frozen=True)
class Page:
    """What `ui` hands over to be mounted.

    Args:
        blocks: the Gradio page.
        theme: its theme; must name no font that is fetched.
        head: HTML for the page's head, which links our style sheets and scripts below `PAGE_FILES_PATH`.
        frame: HTML that is drawn until the Gradio page is there.
    """

    blocks: gradio.Blocks
    theme: gradio.themes.Base
    head: str
    frame: str = ""


BuildPage = Callable[["Assistant", "AppSettings"], Page]


def serve(settings: AppSettings, assistant: Assistant, build_page: BuildPage | None) -> None:
    """Serve until the user stops the program. Once the port is open, begins to load the model.

    Args:
        settings: host, port, data folder, no_browser, and of the key api_key, new_api_key.
        assistant: what answers; closed at the end.
        build_page: makes the page; None serves none.
    """
    import uvicorn

    from app.web.http_server import Server, TimedProtocol

    def on_open() -> None:
        _announce(settings, app.state.access, assistant.notice)
        # Not before: what the page and the model import would wait for each other, and the page comes first.
        assistant.start_loading()

    app = create_app(settings, assistant, build_page)
    config = uvicorn.Config(
        app,
        host=settings.host.strip("[]"),
        port=settings.port,
        http=TimedProtocol,
        log_level="critical",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        # An open page holds its telemetry stream forever; stopping must not wait for it.
        timeout_graceful_shutdown=1,
    )
    Server(config, on_open, assistant.close).run()


def create_app(settings: AppSettings, assistant: Assistant, build_page: BuildPage | None) -> FastAPI:
    """The whole web application, ready for an ASGI server.

    Args:
        build_page: makes the page; None leaves it out, with what only the page asks for. Gradio is not imported then.

    Returns:
        The app; its `state.access` is the key that it asks for, or None.

    Raises:
        UserFacingError: if the data folder cannot be written to, or the key that was set is no good.
    """
    access = open_access_key(settings)
    try:
        uploads = UploadFolder.open(settings.data_dir / "uploads")
    except OSError as error:
        raise UserFacingError(explain_storage_error(error, settings.data_dir)) from error
    from fastapi import FastAPI

    from app.api.routes import add_api_routes
    from app.web.access.gate import KeyGate
    from app.web.document_routes import add_document_routes
    from app.web.document_upload import add_document_upload
    from app.web.library_routes import add_library_routes
    from app.web.request_guard import RequestGuard, allowed_hosts
    from app.web.source_routes import add_source_routes

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        uploads.close()

    app = FastAPI(title="Quest Chat", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.state.access = access
    _add_refusals(app)
    _add_health(app, assistant)
    add_library_routes(app, assistant)
    add_document_upload(app, uploads, assistant)
    add_document_routes(app, assistant)
    add_source_routes(app, assistant)
    if not settings.no_api:
        add_api_routes(app, assistant, settings)
    if build_page is not None:
        _add_page(app, settings, assistant, build_page, uploads)
    # The one that is added last is asked first.
    if access is not None:
        app.add_middleware(KeyGate, access=access, port=settings.port)
    app.add_middleware(RequestGuard, allowed_hosts=allowed_hosts(settings.host))
    return app


def _add_page(
    app: FastAPI, settings: AppSettings, assistant: Assistant, build_page: BuildPage, uploads: UploadFolder
) -> None:
    """Mount the page on everything that is not served yet, and add what only it asks for."""
    # Before Gradio is imported. Its folder for uploads is by default one that all users of a machine share.
    os.environ["GRADIO_TEMP_DIR"] = str(uploads.root)

    import gradio

    from app.web.gradio_apps import build_with_one_app
    from app.web.model_download_routes import add_model_download_routes
    from app.web.model_routes import add_model_routes
    from app.web.page_files import PageFiles
    from app.web.page_head import PageHead
    from app.web.race_routes import add_race_routes
    from app.web.shared_streams import add_shared_streams

    _add_page_files(app)
    _add_telemetry(app, assistant)
    add_race_routes(app, assistant)
    add_model_download_routes(app, assistant, settings.engine_config())
    add_model_routes(app, assistant)
    add_shared_streams(app)
    # Some Windows registries say text/plain, and with nosniff a browser then refuses to run a script.
    mimetypes.add_type("text/javascript", ".js")
    gradio_files = Path(gradio.__file__).parent / "templates" / "frontend" / "assets"
    folders = {f"{PAGE_FILES_PATH}/{name}": ASSETS_FOLDER / name for name in _PAGE_FILE_FOLDERS}
    app.add_middleware(PageFiles, folders=folders | {"/assets": gradio_files}, unchanging=frozenset({"/assets"}))
    page = build_with_one_app(lambda: build_page(assistant, settings))
    app.add_middleware(PageHead, head=page.head, body=page.frame)
    # `mount_gradio_app` leaves it unset, and Gradio then takes every path that a client names for an upload of its own.
    page.blocks.has_launched = True
    gradio.mount_gradio_app(
        app,
        page.blocks,
        path="/",
        server_name=settings.host,
        server_port=settings.port,
        theme=page.theme,
        footer_links=[],
        run_history=False,
        # Exceptions that we did not foresee stay in the terminal; `gr.Error` is shown in any case.
        show_error=False,
        # Gradio would serve what lies below the working folder to whoever asks for it.
        allowed_paths=[],
        enable_monitoring=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
    )


def _add_page_files(app: FastAPI) -> None:
    from fastapi.responses import FileResponse
    from fastapi.staticfiles import StaticFiles

    for folder in _PAGE_FILE_FOLDERS:
        app.mount(f"{PAGE_FILES_PATH}/{folder}", StaticFiles(directory=ASSETS_FOLDER / folder), name=folder)

    @app.get("/favicon.ico")
    def favicon() -> FileResponse:
        return FileResponse(ASSETS_FOLDER / "icons" / "quest-chat.svg", media_type="image/svg+xml")


def _add_health(app: FastAPI, assistant: Assistant) -> None:
    # By it a page tells a server that was started anew from the one it was loaded from.
    instance = secrets.token_hex(8)

    @app.get("/healthz")
    def health() -> dict[str, Any]:
        status = assistant.status()
        return {
            "status": status.stage,
            "message": status.message,
            "model": status.model,
            "device": status.device,
            "context_tokens": status.context_tokens,
            "engine": status.engine_url,
            "instance": instance,
        }


def _add_refusals(app: FastAPI) -> None:
    from fastapi import Request
    from fastapi.responses import JSONResponse

    @app.exception_handler(UserFacingError)
    def refuse(request: Request, error: UserFacingError) -> JSONResponse:
        return JSONResponse({"error": error.message}, 404)


def _add_telemetry(app: FastAPI, assistant: Assistant) -> None:
    import anyio
    from fastapi.responses import JSONResponse, StreamingResponse

    streams = anyio.CapacityLimiter(_MAX_STREAMS)

    # Plain `def` routes run in a thread: telling a page's text decodes tokens.
    @app.get("/telemetry/{conversation_id}/steps/{step}")
    def step(conversation_id: str, step: int) -> JSONResponse:
        assistant.conversation(conversation_id)
        event = assistant.telemetry.step(conversation_id, step)
        if event is None:
            return JSONResponse({"error": f"Step {step} is not kept."}, 404)
        return JSONResponse(event)

    @app.get("/telemetry/{conversation_id}/pages/{page}")
    def page(conversation_id: str, page: int) -> JSONResponse:
        return JSONResponse(assistant.page_text(conversation_id, page))

    @app.get("/telemetry/{conversation_id}/events")
    def events(conversation_id: str) -> StreamingResponse:
        assistant.conversation(conversation_id)

        async def stream() -> AsyncIterator[str]:
            # Starlette cancels this when the browser goes away, wherever it waits.
            subscription = assistant.telemetry.subscribe(conversation_id)
            try:
                # Closed from the other side when the conversation is.
                while not subscription.closed:
                    event = await anyio.to_thread.run_sync(
                        subscription.next, _KEEP_ALIVE_S, abandon_on_cancel=True, limiter=streams
                    )
                    yield ": still here\n\n" if event is None else f"data: {json.dumps(event)}\n\n"
                    if event is not None and event["type"] == "step":
                        await anyio.sleep(1 / _STEPS_PER_S)
            finally:
                subscription.close()

        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(stream(), media_type="text/event-stream", headers=headers)


def _announce(settings: AppSettings, access: AccessKey | None, notice: str) -> None:
    address = settings.page_address
    everywhere = settings.host in ("0.0.0.0", "::")
    note = f" and on this machine's other addresses, port {settings.port}" if everywhere else ""
    what = "Quest Chat, without its page," if settings.headless else "Quest Chat"
    print(f"{what} is open at {address}{note} (Ctrl+C stops it).", flush=True)
    if access is not None:
        print(_about_key(settings, access), flush=True)
    if notice:
        print(notice, flush=True)
    if not settings.no_browser and not settings.headless:
        _open_in_browser(address)


def _about_key(settings: AppSettings, access: AccessKey) -> str:
    if access.made:
        return (
            f"Its key, shown only this once: {access.made}\n"
            "A browser is asked for it once; programs send it in the header `Authorization: Bearer KEY`."
        )
    if settings.api_key:
        return "It asks for the key that you have set."
    return "It asks for the key that was shown when that was made; start with --new-api-key to make another."


def _open_in_browser(address: str) -> None:
    try:
        browser = webbrowser.get()
    except webbrowser.Error:
        return
    # Without a display Python offers text browsers, which are of exactly this class and would take over our terminal.
    if type(browser) is not webbrowser.GenericBrowser:
        browser.open(address)
