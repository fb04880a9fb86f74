"""The page as a whole: it builds, names nothing foreign, and tells how the model is doing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from app.models.model_loader import ModelStatus
from app.web.server import PAGE_FILES_PATH
from ui.chat.question_line import status_markup
from ui.chat.start_message import start_messages
from ui.layout import build_page

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def page(assistant, settings):
    return build_page(assistant, settings)


def test_the_page_has_every_panel(page):
    config = json.dumps(page.blocks.get_config_file(), default=str)
    names = "documents-panel conversations-panel settings-panel messages question live-panel race-panel"
    for name in names.split():
        assert f'"{name}"' in config


def test_linked_files_exist(page):
    linked = re.findall(rf'(?:href|src)="{PAGE_FILES_PATH}/([^"]+)"', page.head)
    assert len(linked) >= 4
    for path in linked:
        assert (ROOT / "assets" / path).is_file(), path


def test_nothing_names_a_foreign_host(page):
    own_files = [*(ROOT / "assets" / "css").glob("*.css"), *(ROOT / "assets" / "js").rglob("*.js")]
    assert own_files
    for text in (page.head, page.theme._get_theme_css(), *(path.read_text(encoding="utf-8") for path in own_files)):
        # The name space of an SVG in place is a name, not an address.
        assert set(re.findall(r"https?://[\w./-]+", text)) <= {"http://www.w3.org/2000/svg"}
        assert not re.search(r"url\(\s*['\"]?(//|http)", text)
    assert page.theme._stylesheets == []


def test_a_tab_that_follows_an_answer_holds_up_nobody_who_asks_one(page):
    functions = page.blocks.fns.values()
    (following,) = (function for function in functions if function.concurrency_id == "followers")
    assert (following.name, following.concurrency_limit) == ("_follow", 30)
    assert all(not function.queue for function in functions if function.name == "_stop")


def test_no_handler_reads_or_changes_the_question_box(page):
    """With any change Gradio may put back what stood in it before, and what it hands on may be what stood there."""
    config = page.blocks.get_config_file()
    (box,) = (one["id"] for one in config["components"] if one["props"].get("elem_id") == "question")
    assert not any(box in [*handler["inputs"], *handler["outputs"]] for handler in config["dependencies"])
    assert not any(box == target for handler in config["dependencies"] for target, _ in handler["targets"])


def test_no_handler_is_offered_as_a_public_interface(page):
    assert all(function.api_visibility == "private" for function in page.blocks.fns.values())


def test_the_model_status_is_shown_at_every_stage(assistant):
    assert 'data-stage="ready"' in status_markup(assistant)
    assert ">tiny-model<" in status_markup(assistant)
    assistant.loaded = ModelStatus("loading", "Reading <weights>", "tiny-model")
    assert 'data-stage="loading"' in status_markup(assistant)
    assert "Reading &lt;weights&gt;" in status_markup(assistant)
    assistant.loaded = ModelStatus("failed", "The model folder is empty.", "tiny-model")
    assert "The model folder is empty." in status_markup(assistant)


def test_the_page_opens_without_torch():
    script = "import sys; import ui.layout, app.web.server, app.chat.assistant; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_the_embedded_model_is_called_a_demonstration_where_a_chat_begins():
    assert "demonstration" not in str(start_messages([]))
    shown = str(start_messages([], is_demonstration=True))
    assert "often wrong" in shown and 'data-dialog="models"' in shown
