"""`bench api`: what an answer costs through the API, over the same session in Python.

One process serves the API and has the model; the official client is another, as with real clients. In each round both
ways read the same prompt, which neither has read before, and decode the same number of tokens, the one and the other
first by turns.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from app.chat.answers.answer import AnswerOptions
from app.chat.assistant import Assistant
from app.chat.completions import ChatMessage
from app.errors import UserFacingError
from app.measure.machine import describe_machine
from app.measure.sample_text import read_text
from app.models.model_loader import LoadedModel
from app.settings import AppSettings

WAYS = ("session", "api")
# Before what is timed: connections are opened, kernels compiled.
_WARM_UP_TOKENS = 8
_ROOT = Path(__file__).resolve().parents[3]


def measure_api(
    settings: AppSettings,
    *,
    contexts: Sequence[int],
    steps: int,
    rounds: int,
    text: Path | None = None,
    on_progress: Callable[[str], None] = lambda message: None,
) -> dict[str, Any]:
    """Measure both ways at each context: medians of `rounds`.

    Args:
        settings: which model, and how; its data folder gives the converted model, nothing is kept there.
        contexts: lengths of the prompts, in tokens.
        steps: tokens decoded after each.
        rounds: how often each is measured.
        text: what the prompts are made of; None takes the sample book.

    Returns:
        `rows` {way, context, tokens, time_to_first_token_s, decode_tokens_per_s, first_token_ratio, speed_ratio},
        `skipped` and `machine`. Ratios are over the session's of the same round.

    Raises:
        UserFacingError: the client is not installed, or the model cannot be loaded.
    """
    if find_spec("openai") is None:
        raise UserFacingError(
            "bench api speaks through the openai client, which is among the packages of the tests: "
            "python -m pip install -r requirements-dev.txt"
        )
    rows: list[dict[str, Any]] = []
    with closing(Assistant(settings, keep=False)) as assistant:
        assistant.wait_until_ready()
        model = assistant.loaded_model()
        book = read_text(text)[1]
        with _served(settings, assistant) as address, _client(address, assistant.status().model) as ask:
            for context in contexts:
                questions = _questions(model, book, context, rounds + 1)
                _session(model, settings, questions[0], _WARM_UP_TOKENS)
                ask(questions[0], _WARM_UP_TOKENS)
                measured: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
                for number, question in enumerate(questions[1:]):
                    on_progress(f"{context} tokens: round {number + 1} of {rounds}")
                    for way in WAYS if number % 2 else reversed(WAYS):
                        figures = ask(question, steps) if way == "api" else _session(model, settings, question, steps)
                        measured[way].append(figures)
                rows += _rows(context, measured)
        device = model.engine.device
    return {
        "benchmark": "api",
        "model": settings.model,
        "rounds": rounds,
        "machine": describe_machine(device),
        "skipped": [],
        "rows": rows,
    }


def _rows(context: int, measured: dict[str, list[dict[str, float]]]) -> list[dict[str, Any]]:
    rows = []
    for way in WAYS:
        pairs = list(zip(measured[way], measured["session"], strict=True))
        rows.append(
            {
                "way": way,
                "context": context,
                "tokens": int(statistics.median(one["tokens"] for one, _ in pairs)),
                "time_to_first_token_s": statistics.median(one["first_s"] for one, _ in pairs),
                "decode_tokens_per_s": statistics.median(map(_speed, measured[way])),
                "first_token_ratio": statistics.median(one["first_s"] / other["first_s"] for one, other in pairs),
                "speed_ratio": statistics.median(_speed(one) / _speed(other) for one, other in pairs),
            }
        )
    return rows


def _speed(figures: dict[str, float]) -> float:
    """Tokens a second after the first."""
    return (figures["tokens"] - 1) / (figures["last_s"] - figures["first_s"])


def _questions(model: LoadedModel, book: str, context: int, count: int) -> list[str]:
    """Texts whose prompts have nearly `context` tokens and begin differently."""
    encoded = model.tokenizer.encode(book)
    empty = len(model.tokenizer.messages.prompt([ChatMessage("user", "-")]).token_ids)
    length = context - empty
    if length < 1 or len(encoded.token_ids) < length + count:
        raise UserFacingError(f"A prompt of {context} tokens cannot be made of this text. Choose other --contexts.")
    starts = [number * (len(encoded.token_ids) - length) // count for number in range(count)]
    spans = [(int(encoded.characters[start, 0]), int(encoded.characters[start + length - 1, 1])) for start in starts]
    return [book[start:end] for start, end in spans]


def _session(model: LoadedModel, settings: AppSettings, question: str, tokens: int) -> dict[str, float]:
    """The same answer from a session, timed by whoever waits for its tokens."""
    engine = model.engine
    options = AnswerOptions(
        attention=settings.attention, token_budget=settings.token_budget, temperature=0, max_new_tokens=tokens
    )
    quest = options.quest_config(engine.page_size, settings.dense_layers)
    sampling = options.sampling_config(model.stop_token_ids)
    begun = time.perf_counter()
    token_ids = model.tokenizer.messages.prompt([ChatMessage("user", question)]).token_ids

    def work(cancellation: Any) -> Iterator[Any]:
        session = engine.new_session()
        for _ in session.prefill(token_ids, cancellation, tokens):
            pass
        yield from session.decode(quest, sampling, cancellation, trace_reads=False)
        session.close()

    times = [time.perf_counter() - begun for step in engine.submit(work) if step.finish_reason != "stop"]
    return {"first_s": times[0], "last_s": times[-1], "tokens": len(times)}


@contextmanager
def _served(settings: AppSettings, assistant: Assistant) -> Iterator[str]:
    import uvicorn

    from app.web.server import create_app

    with tempfile.TemporaryDirectory(prefix="quest-chat-api-") as folder:
        private = replace(settings, data_dir=Path(folder), host="127.0.0.1", headless=True, no_api=False)
        app = create_app(private, assistant, None)
        config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, name="api-server", daemon=True)
        thread.start()
        while not server.started:
            if not thread.is_alive():
                raise UserFacingError("The server of the API did not start.")
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def _client(address: str, model_name: str) -> Iterator[Callable[[str, int], dict[str, float]]]:
    command = [sys.executable, "-m", "app.measure.benchmarks.api_client", address, model_name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_ROOT) as process:

        def ask(question: str, tokens: int) -> dict[str, float]:
            process.stdin.write(json.dumps({"question": question, "tokens": tokens}) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
            if not answer:
                raise UserFacingError("The client of the API has ended; what it says of it stands above.")
            return json.loads(answer)

        try:
            process.stdout.readline()  # it is there
            yield ask
        finally:
            process.stdin.close()
            process.wait()
