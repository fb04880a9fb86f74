"""A tiny random model with a tokenizer and a chat template of its own, an assistant over it, and documents."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.chat.assistant import Assistant
from app.chat.prompt.template import ChatTokenizer
from app.library import Document, DocumentPage
from app.settings import AppSettings

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CONTROL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
WINDOW_TOKENS = 1024
CORPUS = (
    "The harbour lay still in the morning and the boats came home one after the other.",
    "Nobody in the village knew why the lighthouse keeper had left, or where he had gone.",
    "Question: who kept the light? Answer: the daughter of the keeper, every night of the winter.",
)


def write_tokenizer(folder: Path, chat_template: str | None = CHATML, trim_offsets: bool = False) -> Path:
    """Save a byte-level tokenizer whose text has three control tokens and `<think>`, which is added but not special."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=trim_offsets)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(CONTROL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_tokens([AddedToken("<think>", special=False)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|endoftext|>", eos_token="<|im_end|>", chat_template=chat_template
    )
    fast.save_pretrained(folder)
    return folder


def write_model(folder: Path) -> Path:
    """Save a random model for that tokenizer: three layers, of which Quest keeps two dense."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=512,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=WINDOW_TOKENS,
        bos_token_id=0,
        eos_token_id=2,
        initializer_range=0.3,
    )
    torch.manual_seed(3)
    LlamaForCausalLM(config).save_pretrained(folder)
    return write_tokenizer(folder)


def make_text_document(*page_texts: str, name: str = "harbour.txt") -> Document:
    """A document that was never a file."""
    pages = tuple(DocumentPage(index, str(index + 1), text) for index, text in enumerate(page_texts))
    return Document(f"{abs(hash((name, page_texts))):016x}"[:16], name, Path(name), pages)


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("tiny-model"))


@pytest.fixture(scope="session")
def chat_tokenizer(tmp_path_factory) -> ChatTokenizer:
    return ChatTokenizer(write_tokenizer(tmp_path_factory.mktemp("tokenizer")))


@pytest.fixture
def text_document() -> Callable[..., Document]:
    return make_text_document


@pytest.fixture
def book_path(tmp_path: Path) -> Path:
    """A text file of some hundred tokens."""
    path = tmp_path / "harbour.txt"
    path.write_text("\n\n".join(CORPUS * 3), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def assistant(tiny_model_folder, tmp_path_factory) -> Iterator[Assistant]:
    """An assistant over the tiny model. Greedy answers of a random model seldom stop before `max_new_tokens`."""
    settings = AppSettings(
        data_dir=tmp_path_factory.mktemp("assistant"), model=str(tiny_model_folder), device="cpu", dtype="float32"
    )
    assistant = Assistant(settings)
    assistant.wait_until_ready()
    yield assistant
    assistant.close()


@pytest.fixture
def open_assistant(tiny_model_folder, tmp_path) -> Iterator[Callable[..., Assistant]]:
    """Return `open_assistant(**options)`: one over the test's own data folder, closed at the test's end or before."""
    opened = []

    def open_one(loaded: bool = True, window_tokens: int = WINDOW_TOKENS, selection: str = "mean", **options):
        model_folder = tiny_model_folder
        if window_tokens != WINDOW_TOKENS:
            model_folder = tmp_path / f"model-{window_tokens}"
            shutil.copytree(tiny_model_folder, model_folder, dirs_exist_ok=True)
            config = json.loads((model_folder / "config.json").read_text())
            (model_folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": window_tokens}))
        settings = AppSettings(
            data_dir=tmp_path / "data",
            model=str(model_folder),
            device="cpu",
            dtype="float32",
            token_budget=64,
            selection=selection,
        )
        assistant = Assistant(settings, **options)
        opened.append(assistant)
        if loaded:
            assistant.wait_until_ready()
        return assistant

    yield open_one
    for assistant in opened:
        assistant.close()


@pytest.fixture
def make_tokenizer(tmp_path: Path) -> Callable[..., ChatTokenizer]:
    """Return `make_tokenizer(chat_template=CHATML, trim_offsets=False)`."""

    def make(**settings) -> ChatTokenizer:
        return ChatTokenizer(write_tokenizer(tmp_path / "made-tokenizer", **settings))

    return make
