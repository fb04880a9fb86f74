"""What a start imports before it must: the page is there before torch, and the model before torch's compiler.

Structure only; how long a start takes is measured, not asserted.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.settings import AppSettings
from app.web import server

ROOT = Path(__file__).parents[3]
# Each takes a noticeable part of a second to import.
HEAVY = ("torch", "transformers", "accelerate", "numba", "triton", "llama_index", "pypdf", "matplotlib")


def modules_after(program: str, names: tuple[str, ...]) -> set[str]:
    """Those of `names` that a fresh interpreter has imported after `program`."""
    report = f"\nimport json, sys\nprint(json.dumps([name for name in {names!r} if name in sys.modules]))"
    result = subprocess.run([sys.executable, "-c", program + report], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return set(json.loads(result.stdout.splitlines()[-1]))


def test_the_page_needs_nothing_of_the_model(tmp_path):
    program = f"""
from pathlib import Path
from app.chat.assistant import Assistant
from app.web.server import create_app
from app.settings import AppSettings
from ui.layout import build_page
settings = AppSettings(data_dir=Path({str(tmp_path)!r}))
create_app(settings, Assistant(settings), build_page)
"""
    assert modules_after(program, HEAVY) == set()


def test_the_command_line_needs_no_library():
    assert modules_after("import app.cli, ui.__main__", (*HEAVY, "gradio", "fastapi", "numpy")) == set()


@pytest.mark.parametrize("subcommand", ["ask", "bench", "eval", "doctor"])
def test_torch_is_not_loaded_before_its_threads_are_told_how_to_wait(subcommand):
    # OpenMP reads the environment once, as torch is imported; `set_library_defaults` follows the parsing.
    assert modules_after(f"from app.cli import build_parser\nbuild_parser({subcommand!r})", HEAVY) == set()


@pytest.mark.slow
def test_the_embedded_model_needs_no_compiler(embedded_engine_folder):
    program = f"""
from pathlib import Path
from app.models.model_loader import ModelLoader
from app.settings import AppSettings
loader = ModelLoader(AppSettings(data_dir=Path({str(embedded_engine_folder)!r}), device="cpu", context_tokens=512))
loader.wait()
loader.close()
"""
    # transformers' Llama config and AutoTokenizer bring the last one, and with it half of torch.
    names = ("torch._dynamo", "torch.distributed.tensor", "sympy", "transformers.integrations.hub_kernels")
    assert modules_after(program, names) == set()


@pytest.fixture
def embedded_engine_folder(embedded_data_dir):
    """The tests' data folder with the embedded model converted, which takes transformers' config classes."""
    from quest_core.model.model_source import find_model

    find_model("embedded", embedded_data_dir / "models")
    return embedded_data_dir


def test_gradio_writes_no_type_stubs():
    program = """
from app.web.gradio_stubs import skip_gradio_stubs
skip_gradio_stubs()
skip_gradio_stubs()
import inspect, gradio
from gradio import component_meta
assert "gradio_stubs" in inspect.getsourcefile(component_meta.create_or_modify_pyi)
assert gradio.Textbox and gradio.HTML
"""
    assert modules_after(program, ("gradio",)) == {"gradio"}


def test_the_model_is_loaded_after_the_port_is_open(monkeypatch, tmp_path, capsys):
    import uvicorn

    happened = []

    class RecordingAssistant:
        notice = "The database was put aside."

        def start_loading(self):
            happened.append("loading")

        def close(self):
            happened.append("closed")

    async def startup(self, sockets=None):
        happened.append("open")
        self.started = True

    def run(self):
        import asyncio

        asyncio.run(self.startup())

    monkeypatch.setattr(uvicorn.Server, "startup", startup)
    monkeypatch.setattr(uvicorn.Server, "run", run)
    def create_app(*arguments):
        happened.append("page")
        return SimpleNamespace(state=SimpleNamespace(access=None))

    monkeypatch.setattr(server, "create_app", create_app)
    server.serve(AppSettings(data_dir=tmp_path, no_browser=True), RecordingAssistant(), build_page=None)
    assert happened == ["page", "open", "loading"]
    assert capsys.readouterr().out.endswith("The database was put aside.\n")
