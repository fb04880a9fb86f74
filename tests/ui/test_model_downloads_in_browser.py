"""Models to download as the page shows them: refused offline, licence first, progress, pause, resume, cancel, use."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

import pytest

from app.models.hub.hub_downloads import HubDownloads
from tests.app.models.hub.hub_server import HubServer, Repository, send_to

pytestmark = pytest.mark.browser

SUGGESTED = "Qwen/Qwen2.5-0.5B-Instruct"
WEIGHTS = random.Random(3).randbytes(1_500_000)
# Where the model picker puts it, and hears what is to be used; it is told of changes as the page's stream tells it.
MOUNT = """async () => {
  const { ModelDownloads } = await import("/quest/js/models/model-downloads.js");
  if (!customElements.get("quest-model-downloads")) customElements.define("quest-model-downloads", ModelDownloads);
  const box = document.createElement("div");
  box.id = "mounted";
  box.style.cssText = "position:fixed;inset:0;z-index:9999;overflow:auto;padding:16px;background:var(--quest-paper)";
  box.append(document.createElement("quest-model-downloads"));
  document.body.append(box);
  window.used = [];
  window.addEventListener("quest-use-model", ({ detail }) => window.used.push(detail));
  setInterval(() => window.dispatchEvent(new Event("quest-models")), 100);
}"""


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Iterator[HubServer]:
    config = json.dumps({"model_type": "qwen2", "max_position_embeddings": 32768}).encode()
    server = HubServer(
        {
            SUGGESTED: Repository({"config.json": config, "model.safetensors": WEIGHTS}),
            "some/packed": Repository({"<b>x</b>.gguf": b"", "small.gguf": WEIGHTS}, licence="<img src=x>"),
        }
    )
    send_to(server, tmp_path / "hf", monkeypatch)
    yield server
    server.close()


def test_a_model_is_downloaded_from_the_page(served, open_page, hub, tmp_path):
    offline, page, complaints = served.model_downloads, open_page(viewport={"width": 390, "height": 844}), []
    page.on("response", lambda one: one.status >= 400 and "/downloads" in one.url and complaints.append(one.url))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.evaluate(MOUNT)
    element = page.locator("#mounted quest-model-downloads")
    element.get_by_text("Quest Chat is offline").wait_for()
    assert not element.get_by_role("button", name="Download").count() and not element.locator("form").is_visible()

    served.model_downloads = downloads = HubDownloads(tmp_path / "downloads.json", False, lambda: None, pause_s=0.05)
    try:
        hub.faults.bytes_per_s = 2e5
        row = element.locator("li", has_text="Qwen2.5 0.5B Instruct")
        assert "Apache-2.0" in row.inner_text() and "of memory for 32,768 tokens" in row.inner_text()
        row.get_by_role("button", name="Download").click()
        pause = row.get_by_role("button", name="Pause the download")
        pause.wait_for()
        # Whoever presses a button with the keyboard stays where they were.
        assert pause.evaluate("button => button.getRootNode().activeElement === button")
        row.get_by_text("KiB/s").wait_for()
        pause.press("Enter")
        row.get_by_role("button", name="Resume the download").wait_for()
        assert "paused" in row.inner_text() and element.get_by_role("status").inner_text().endswith("paused")
        row.get_by_role("button", name="Cancel").click()
        row.get_by_role("button", name="Keep them").click()
        get = row.get_by_role("button", name="Download Qwen2.5 0.5B Instruct, 954 MiB, Apache-2.0")
        get.wait_for()
        hub.faults.bytes_per_s, hub.faults.wrong_bytes = 0, 1
        get.click()
        row.get_by_text("arrived damaged").wait_for()
        row.get_by_role("button", name="Resume").click()
        row.get_by_text("downloaded and checked").wait_for()
        row.get_by_role("button", name=f"Use {SUGGESTED}").click()
        (used,) = page.evaluate("window.used")
        assert used.pop("weightBits") in (16, 8, 4) and used == {"model": SUGGESTED, "contextTokens": 32768}

        def look_up(model: str) -> None:
            element.get_by_label("Any other model").fill(model)
            element.get_by_role("button", name="Look it up").click()

        look_up("some/packed")
        element.get_by_text("Name one, as some/packed/small.gguf").wait_for()
        look_up("some/packed/small.gguf")
        about = element.locator(".about")
        about.get_by_role("link", name="<img src=x>").wait_for()
        # On a telephone a finger hits it.
        assert about.get_by_role("button", name="Download").bounding_box()["height"] >= 44
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        about.get_by_role("button", name="Download").click()
        other = element.get_by_role("list", name="Downloads").locator("li", has_text="some/packed/small.gguf")
        other.get_by_role("button", name="Use some/packed/small.gguf").click()
        assert page.evaluate("window.used[1].model").endswith("small.gguf")
        other.get_by_role("button", name="Close").click()
        other.wait_for(state="detached")
        assert complaints == []
    finally:
        downloads.close()
        served.model_downloads = offline
