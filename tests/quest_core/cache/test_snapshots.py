"""Prefixes shared between sessions, and restored from the disk: as if each had been computed alone."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from quest_core.cache.model_key import model_key
from quest_core.cache.paged_kv_cache import PoolExhausted
from quest_core.cache.prefixes import Prefix
from quest_core.cache.snapshot_files import sized_files, verify_snapshots
from quest_core.config import EngineConfig, QuestConfig, SamplingConfig
from quest_core.engine import Engine
from quest_core.jobs import Priority
from quest_core.session import Session

CHUNK = 64
QUEST = QuestConfig(token_budget=192)
SAMPLING = SamplingConfig(max_new_tokens=16)


@pytest.fixture
def open_engine(tiny_folder, tmp_path) -> Iterator[Callable[..., Engine]]:
    """Engines over one snapshot folder; closed after the test."""
    engines = []

    def make(**settings) -> Engine:
        config = EngineConfig(
            device="cpu", dtype="float32", page_size=16, prefill_chunk_tokens=CHUNK, snapshot_dir=tmp_path / "snapshots"
        )
        engines.append(Engine.load(str(tiny_folder), replace(config, **settings)))
        return engines[-1]

    yield make
    for engine in engines:
        if engine._thread.is_alive():
            engine.close()


def read(session: Session, tokens: list[int], prefixes: list[Prefix], never, room_tokens: int = 0):
    """Prefill; returns its last progress."""
    return list(session.prefill(tokens, never, room_tokens, prefixes))[-1]


def answer(session: Session, never) -> list[int]:
    return [step.token_id for step in session.decode(QUEST, SAMPLING, never)]


def content(session: Session, tokens: int) -> dict[str, torch.Tensor]:
    """All that the cache's first pages hold of the first `tokens`, bit by bit."""
    cache = session.cache
    pool, table = cache.pool, cache.page_table.long()
    pages = -(-tokens // pool.page_size)
    in_last = (tokens - 1) % pool.page_size + 1
    found = {}
    for name, tensor in zip(pool.cache._fields[1:], pool.cache[1:], strict=True):
        if tensor is None:
            continue
        found[name] = tensor.view(torch.uint8)[:, table[:pages]].unflatten(-1, (-1, tensor.element_size())).cpu()
        if "summar" not in name:
            found[name][:, -1, :, in_last:] = 0
    return found


def assert_same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    for name in left:
        assert torch.equal(left[name], right[name]), name


LAYOUTS = {
    "float32": {"dtype": "float32"},
    "auto": {"dtype": "auto"},
    "bounds": {"selection": "quest", "summary_bits": 16},
}


@pytest.mark.parametrize("page_size", [4, 16, 64])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_shared_and_restored_equal_fresh(open_engine, prompt, never, layout, page_size):
    """Prefixes of ragged lengths: the same pages, bit by bit, and the same answer."""
    check_all_ways(open_engine, prompt, never, LAYOUTS[layout] | {"page_size": page_size})


GPU_LAYOUTS = {
    "bfloat16": {"dtype": "bfloat16"},
    "float32": {"dtype": "float32"},
    "eager": {"dtype": "bfloat16", "eager": True},
    "float8": {"dtype": "bfloat16", "kv_bits": 8},
    "float8, float16": {"dtype": "float16", "kv_bits": 8},
    "bounds": {"selection": "quest"},
}


@pytest.mark.gpu
@pytest.mark.parametrize("page_size", [4, 16])
@pytest.mark.parametrize("layout", GPU_LAYOUTS)
def test_shared_and_restored_equal_fresh_on_a_gpu(open_engine, prompt, never, layout, page_size):
    """The same with steps launched ahead."""
    check_all_ways(open_engine, prompt, never, GPU_LAYOUTS[layout] | {"device": "cuda", "page_size": page_size})


@pytest.mark.gpu
def test_a_gpu_decodes_right_while_the_writer_and_readers_work(open_engine, prompt, never):
    """Jobs of both priorities over a pool of one window: pages change hands all the time."""
    settings = {"device": "cuda", "dtype": "bfloat16", "cached_contexts": 1, "page_size": 4}
    engine = open_engine(**settings)
    documents = [prompt(400, seed=seed) for seed in range(4)]
    plain = open_engine(**settings, snapshot_dir=None)
    expected = [answer_after(plain, document) for document in documents]
    for _ in range(3):
        for number, document in enumerate(documents):
            background = engine.submit(
                lambda cancellation, document=documents[number - 1]: engine.new_session().prefill(
                    document, cancellation, 0, [Prefix(400, ("a",))]
                ),
                Priority.BACKGROUND,
            )
            ((_, _, tokens),) = engine.submit(
                lambda cancellation, document=document: ask(engine, document, [Prefix(400, ("a",))])
            )
            assert tokens == expected[number]
            assert list(background)[-1].done_tokens == 400
    assert engine.snapshots.flush(30) and engine.snapshots.failure == ""
    assert not [check for check in verify_snapshots(engine.config.snapshot_dir) if check.fault]


def answer_after(engine: Engine, document: list[int]) -> list[int]:
    ((_, _, tokens),) = engine.submit(lambda cancellation: ask(engine, document, [Prefix(400, ("a",))]))
    return tokens


def check_all_ways(open_engine, prompt, never, settings) -> None:
    fresh_engine = open_engine(**settings, snapshot_dir=None)
    tokens = prompt(541)
    prefixes = [Prefix(27, ("a",)), Prefix(129, ("a", "b")), Prefix(500, ("c",))]
    fresh = fresh_engine.new_session()
    assert read(fresh, tokens, prefixes, never).reused_tokens == 0
    expected = content(fresh, 541), answer(fresh, never)

    writer = open_engine(**settings)
    first, second = writer.new_session(), writer.new_session()
    assert read(first, tokens, prefixes, never).reused_tokens == 0
    shared = read(second, tokens, prefixes, never)
    assert (shared.reused_tokens, shared.restored_tokens) == (500, 0)
    for session in (first, second):
        assert_same(content(session, 541), expected[0])
        assert answer(session, never) == expected[1]
    assert writer.snapshots.flush(30)
    assert writer.snapshots.failure == ""
    writer.close()

    reader = open_engine(**settings, snapshots_read_only=True)
    restored = reader.new_session()
    progress = read(restored, tokens, prefixes, never)
    assert (progress.reused_tokens, progress.restored_tokens) == (500, 500)
    assert progress.restored_bytes == reader.snapshots.bytes()
    assert_same(content(restored, 541), expected[0])
    assert answer(restored, never) == expected[1]


@pytest.mark.parametrize("length", [1, 15, 16, 17, 27, 63, 64, 65, 600])
def test_prefixes_of_any_length(open_engine, prompt, never, length):
    """Also where the prompt is nothing but the prefix: its last token runs again when somebody wants an answer."""
    tokens = prompt(length)
    prefixes = [Prefix(length, ("a",))]
    plain = open_engine(snapshot_dir=None)
    fresh = plain.new_session()
    read(fresh, tokens, prefixes, never)
    expected = content(fresh, length), answer(fresh, never)
    writer = open_engine()
    read(writer.new_session(), tokens, prefixes, never)
    assert writer.snapshots.flush(30)
    reader = open_engine(snapshots_read_only=True)
    for session, restored in ((writer.new_session(), 0), (reader.new_session(), length), (reader.new_session(), 0)):
        for _ in range(2):
            progress = read(session, tokens, prefixes, never)
            assert progress.reused_tokens == progress.done_tokens == length
            assert progress.restored_tokens == restored
            restored = 0
        assert_same(content(session, length), expected[0])
        assert answer(session, never) == expected[1]
        session.truncate(length - 1)


def test_a_shared_prefix_and_then_different_questions(open_engine, prompt, never):
    """Copy on write: neither question changes the other's pages, nor those that are kept."""
    engine, alone = open_engine(), open_engine(snapshot_dir=None)
    document, prefixes = prompt(203), [Prefix(203, ("a",))]  # ends in the middle of a page and of a chunk
    questions = [prompt(30, seed=1), prompt(41, seed=2), prompt(1, seed=3)]
    sessions = [engine.new_session() for _ in questions]
    for session, question in zip(sessions, questions, strict=True):
        read(session, document + question, prefixes, never)
    for session, question in zip(sessions, questions, strict=True):
        expected = alone.new_session()
        read(expected, document + question, prefixes, never)
        assert_same(content(session, 203 + len(question)), content(expected, 203 + len(question)))
        assert answer(session, never) == answer(expected, never)
        fork = session.fork()
        session.truncate(100)
        assert answer_again(fork, session.tokens, never) is not None
        # Edited: the question asked anew is read after the same prefix.
        progress = read(session, document + questions[0], prefixes, never)
        assert progress.reused_tokens == 203
        fork.close()


def answer_again(session: Session, tokens: list[int], never) -> list[int]:
    return read(session, tokens, [], never)


def test_what_was_decoded_or_cut_elsewhere_is_not_shared(open_engine, prompt, never):
    """An answer's own tokens are read under Quest, or other chunks round differently: a fresh prefill would differ."""
    engine, alone = open_engine(), open_engine(snapshot_dir=None)
    session = engine.new_session()
    read(session, prompt(100), [Prefix(90, ("a",))], never)
    written = prompt(100) + answer(session, never)
    tokens = written + prompt(200, seed=3)
    prefixes = [Prefix(280, ("b",))]
    assert session.tokens[:100] == prompt(100)
    progress = read(session, tokens, prefixes, never)
    assert progress.reused_tokens == 64  # the chunk up to 90 is none of these prefixes'
    fresh = alone.new_session()
    read(fresh, tokens, prefixes, never)
    assert_same(content(session, len(tokens)), content(fresh, len(tokens)))


def test_without_prefixes_nothing_is_shared_and_nothing_is_written(open_engine, prompt, never, tmp_path):
    engine = open_engine()
    for _ in range(2):
        session = engine.new_session()
        assert read(session, prompt(300), [], never).reused_tokens == 0
        session.close()
    assert engine.memory()["free_pages"] == engine.memory()["pool_pages"]
    assert engine.snapshots.flush(10)
    assert list(sized_files(tmp_path / "snapshots")) == []
    off = open_engine(snapshot_dir=None)
    assert off.snapshots is None


@pytest.mark.parametrize(("levels", "restored"), [(1, 250), (2, 0)])
def test_what_was_kept_when_a_page_could_have_two_summaries(open_engine, prompt, never, monkeypatch, levels, restored):
    """With one it is read as before; with two the text is read anew."""

    def former_key(folder, settings, *others):
        kept = ("device", "dtype", "weight_bits", "summary", "page_size", "pages")
        return model_key(folder, {"summary_levels": levels, **{name: settings[name] for name in kept}}, *others)

    tokens, prefixes = prompt(300), [Prefix(250, ("a",))]
    with monkeypatch.context() as former:
        former.setattr("quest_core.engine.model_key", former_key)
        writer = open_engine()
    expected = writer.new_session()
    read(expected, tokens, prefixes, never)
    writer.close()
    engine = open_engine()
    session = engine.new_session()
    assert read(session, tokens, prefixes, never).restored_tokens == restored
    assert_same(content(session, 300), content(expected, 300))
    assert engine.snapshots.flush(30) and engine.snapshots.failure == ""
    assert not [check for check in verify_snapshots(engine.config.snapshot_dir) if check.fault]


def test_each_rope_variant_has_its_own(open_engine, prompt, never):
    """Cached keys are rotated: what was read for a short conversation is none of a long one's."""
    tokens, prefixes = prompt(300), [Prefix(250, ("a",))]
    engine = open_engine(context_tokens=1600)
    for room in (0, 700, 1200):
        progress = read(engine.new_session(), tokens, prefixes, never, room)
        assert progress.reused_tokens == 0
    assert engine.snapshots.flush(30)
    # Another window has the same first variants.
    other = open_engine(context_tokens=None, snapshots_read_only=True)
    assert read(other.new_session(), tokens, prefixes, never).restored_tokens == 250
    other = open_engine(context_tokens=1280, snapshots_read_only=True)
    for room, restored in ((0, 250), (700, 250)):
        session, fresh = other.new_session(), open_engine(context_tokens=1280, snapshot_dir=None).new_session()
        assert read(session, tokens, prefixes, never, room).restored_tokens == restored
        read(fresh, tokens, prefixes, never, room)
        assert answer(session, never) == answer(fresh, never)


def test_segments_leave_a_full_pool_and_come_back_from_the_disk(open_engine, prompt, never):
    """A pool of one window, and documents that fill it several times over."""
    engine = open_engine(cached_contexts=1, context_tokens=640)
    documents = [prompt(400, seed=seed) for seed in range(4)]
    prefixes = [Prefix(400, ("a",))]
    first = []
    for document in documents:
        first += list(engine.submit(lambda cancellation, document=document: ask(engine, document, prefixes)))
        assert engine.snapshots.flush(30)
    again = []
    for document in documents:
        again += list(engine.submit(lambda cancellation, document=document: ask(engine, document, prefixes)))
    assert [reused for reused, _, _ in first] == [0, 0, 0, 0]
    assert [(reused, restored > 0) for reused, restored, _ in again] == [(400, True)] * 4
    assert [tokens for _, _, tokens in first] == [tokens for _, _, tokens in again]


def ask(engine: Engine, document: list[int], prefixes: list[Prefix]) -> Iterator[tuple[int, int, list[int]]]:
    from quest_core.jobs import Cancellation

    session = engine.new_session()
    progress = read(session, document + [5, 6, 7], prefixes, Cancellation())
    yield progress.reused_tokens, progress.restored_tokens, answer(session, Cancellation())
    session.close()


def test_a_paused_prefill_whose_pages_were_taken_goes_on_right(open_engine, prompt, never):
    """An answer needs the whole pool while a document is read in the background."""
    engine = open_engine(cached_contexts=1, context_tokens=640, snapshot_dir=None)
    document, prefixes, question = prompt(600), [Prefix(600, ("a",))], prompt(620, seed=9)
    sessions, answers = [], []

    def reading(cancellation):
        session = engine.new_session()
        sessions.append(session)
        yield from session.prefill(document, cancellation, 0, prefixes)

    def answering(cancellation):
        session = engine.new_session()
        list(session.prefill(question, cancellation))
        answers.append(answer(session, cancellation))
        yield sessions[0].context_tokens
        session.close()

    background = engine.submit(reading, Priority.BACKGROUND)
    events = [next(background) for _ in range(3)]
    (left,) = engine.submit(answering)
    events += list(background)
    assert left < 600  # it had to go
    assert events[-1].done_tokens == 600
    fresh = open_engine(snapshot_dir=None).new_session()
    read(fresh, document, prefixes, never)
    assert_same(content(sessions[0], 600), content(fresh, 600))
    other = open_engine(snapshot_dir=None).new_session()
    list(other.prefill(question, never))
    assert answers[0] == answer(other, never)


def test_an_answer_takes_over_what_was_read_in_the_background(open_engine, prompt, never):
    engine = open_engine()
    document, prefixes = prompt(600), [Prefix(600, ("a",))]
    reader = engine.new_session()
    background = reader.prefill(document, never, 0, prefixes)
    for progress in background:
        if progress.done_tokens >= 256:
            break
    asked = engine.new_session()
    assert read(asked, document + [5], prefixes, never).reused_tokens == 256
    rest = list(background)
    assert rest[-1].done_tokens == 600
    assert rest[-1].reused_tokens == 600 - 256  # what the answer has computed meanwhile


def test_a_prefill_that_another_has_overtaken_ends(open_engine, prompt, never):
    engine = open_engine()
    session = engine.new_session()
    paused = session.prefill(prompt(600), never, 0, [Prefix(600, ("a",))])
    next(paused), next(paused)
    read(session, prompt(300, seed=5), [], never)
    assert list(paused) == []
    assert session.tokens == prompt(300, seed=5)


def test_a_paused_decode_whose_pages_were_taken_says_so(open_engine, prompt, never):
    engine = open_engine()
    session = engine.new_session()
    read(session, prompt(100), [], never)
    steps = session.decode(QUEST, SAMPLING, never)
    next(steps), next(steps)
    session.truncate(0)
    with pytest.raises(RuntimeError, match="emptied while its job was paused"):
        next(steps)


def test_a_full_pool_is_no_deadlock_and_takes_nothing_from_who_runs(open_engine, prompt, never):
    engine = open_engine(cached_contexts=1, context_tokens=640)
    session = engine.new_session()
    read(session, prompt(630), [Prefix(600, ("a",))], never)
    other = engine.new_session()
    with pytest.raises(PoolExhausted):
        read(other, prompt(300, seed=1), [Prefix(300, ("b",))], never)
    other.close()
    fresh = open_engine(snapshot_dir=None).new_session()
    read(fresh, prompt(630), [Prefix(600, ("a",))], never)
    assert answer(session, never)[:8] == answer(fresh, never)[:8]


def test_forgetting_a_document_forgets_it_everywhere(open_engine, prompt, never, tmp_path):
    engine = open_engine()
    prefixes = [Prefix(100, ("a",)), Prefix(300, ("a", "b"))]
    read(engine.new_session(), prompt(320), prefixes, never)
    read(engine.new_session(), prompt(320, seed=1), [Prefix(300, ("c",))], never)
    assert engine.snapshots.flush(30)
    sizes = [engine.snapshots.bytes(owner) for owner in ("a", "b", "c", "d")]
    assert sizes[0] > sizes[1] > 0 == sizes[3]
    engine.forget("b")
    assert [engine.snapshots.bytes(owner) for owner in "abc"] == [sizes[0] - sizes[1], 0, sizes[2]]
    assert read(engine.new_session(), prompt(320), prefixes, never).reused_tokens == 100
    engine.forget("a")
    assert engine.snapshots.flush(30)
    assert [engine.snapshots.bytes(owner) for owner in "abc"] == [0, 0, sizes[2]]
    assert read(engine.new_session(), prompt(320), prefixes, never).reused_tokens == 0


DAMAGES = {
    "truncated": lambda data: data[:-1],
    "empty": lambda data: b"",
    "grown": lambda data: data + b"\0",
    "zeroed": lambda data: bytes(len(data)),
    "flipped at the end": lambda data: flip(data, len(data) - 1),
    "flipped in the middle": lambda data: flip(data, len(data) // 2),
    "flipped in the length": lambda data: flip(data, 7),
    "flipped in the header": lambda data: flip(data, data.index(b"owners") + 12),
    "flipped in a shape": lambda data: flip(data, data.index(b"shape") + 8),
    "no header": lambda data: b"\xff" * 8 + data[8:],
    "a header of nonsense": lambda data: data[:8] + b"[" * 300 + data[308:],
}


def flip(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


# The first of several files, and the last.
@pytest.mark.parametrize(("damage", "number"), [(damage, 2 * (place % 2)) for place, damage in enumerate(DAMAGES)])
def test_damaged_files_are_found_removed_and_made_again(open_engine, prompt, never, tmp_path, damage, number):
    tokens, prefixes = prompt(320), [Prefix(300, ("a",))]
    writer = open_engine()
    session = writer.new_session()
    read(session, tokens, prefixes, never)
    expected = content(session, 320)
    assert writer.snapshots.flush(30)
    writer.close()
    segments = writer._sharing.plan(tokens, prefixes, writer.rope_variants[0])
    path = writer.snapshots._path(segments[number])
    whole = path.read_bytes()
    path.write_bytes(DAMAGES[damage](whole))
    assert [check.path for check in verify_snapshots(tmp_path / "snapshots") if check.fault] == [path]

    reader = open_engine(snapshots_read_only=True)
    session = reader.new_session()
    progress = read(session, tokens, prefixes, never)
    assert progress.restored_tokens == 300 - CHUNK
    assert_same(content(session, 320), expected)
    assert path.read_bytes() == DAMAGES[damage](whole)  # who only reads removes nothing

    writer = open_engine()
    session = writer.new_session()
    assert read(session, tokens, prefixes, never).restored_tokens == 300 - CHUNK
    assert_same(content(session, 320), expected)
    assert writer.snapshots.flush(30)
    assert path.read_bytes() == whole


def test_foreign_files_are_never_believed(open_engine, prompt, never, tmp_path):
    tokens, prefixes = prompt(320), [Prefix(300, ("a",))]
    writer = open_engine()
    read(writer.new_session(), tokens, prefixes, never)
    read(writer.new_session(), prompt(320, seed=1), prefixes, never)
    assert writer.snapshots.flush(30)
    first, second, *_ = writer._sharing.plan(tokens, prefixes, writer.rope_variants[0])
    other = writer._sharing.plan(prompt(320, seed=1), prefixes, writer.rope_variants[0])[0]
    folder, path = writer.snapshots._folder, writer.snapshots._path
    writer.close()
    shutil.copy(path(other), path(first))
    faults = {check.path.name: check.fault for check in verify_snapshots(tmp_path / "snapshots") if check.fault}
    assert faults == {path(first).name: "has the name of another"}
    # Another layout or model has another folder: one that was copied over has other shapes, and is measured first.
    coarse = open_engine(page_size=64)
    read(coarse.new_session(), tokens, prefixes, never)
    assert coarse.snapshots.flush(30)
    assert coarse.snapshots._folder != folder
    coarse_second = coarse._sharing.plan(tokens, prefixes, coarse.rope_variants[0])[1]
    shutil.copy(coarse.snapshots._path(coarse_second), path(second))
    reader = open_engine()
    session, fresh = reader.new_session(), open_engine(snapshot_dir=None).new_session()
    assert read(session, tokens, prefixes, never).restored_tokens == 300 - 2 * CHUNK
    read(fresh, tokens, prefixes, never)
    assert_same(content(session, 320), content(fresh, 320))


def test_a_forged_file_of_the_right_name_is_measured_before_it_is_read(open_engine, prompt, never):
    """Its checksums are right and its tensors are another page size's: nothing is written past a page."""
    tokens, prefixes = prompt(320), [Prefix(300, ("a",))]
    engines = [open_engine(), open_engine(page_size=64)]
    for engine in engines:
        read(engine.new_session(), tokens, prefixes, never)
        assert engine.snapshots.flush(30)
    first, coarse = (engine._sharing.plan(tokens, prefixes, engine.rope_variants[0])[0] for engine in engines)
    paths = [engine.snapshots._path(each) for engine, each in zip(engines, (first, coarse), strict=True)]
    from quest_core.cache.snapshot_files import open_regular, read_header

    with open_regular(paths[1]) as file:
        header, data = read_header(file), file.read()
    forged = replace(header, key=first.key, parent=first.parent)
    paths[0].write_bytes(forged.encode() + data)
    assert not [check for check in verify_snapshots(paths[0].parent.parent) if check.fault]
    for engine in engines:
        engine.close()
    reader = open_engine()
    assert read(reader.new_session(), tokens, prefixes, never).restored_tokens == 300 - CHUNK


def test_links_and_pipes_are_not_followed(open_engine, prompt, never, tmp_path):
    import os

    tokens, prefixes = prompt(320), [Prefix(300, ("a",))]
    writer = open_engine()
    read(writer.new_session(), tokens, prefixes, never)
    assert writer.snapshots.flush(30)
    writer.close()
    first, second, *_ = writer._sharing.plan(tokens, prefixes, writer.rope_variants[0])
    outside = tmp_path / "outside"
    writer.snapshots._path(first).rename(outside)
    writer.snapshots._path(first).symlink_to(outside)
    writer.snapshots._path(second).unlink()
    os.mkfifo(writer.snapshots._path(second))
    reader = open_engine(snapshots_read_only=True)
    assert read(reader.new_session(), tokens, prefixes, never).restored_tokens == 300 - 2 * CHUNK
    assert sorted(check.fault for check in verify_snapshots(tmp_path / "snapshots") if check.fault) == [
        "is a link", "is no file"
    ]  # fmt: skip
    reader.forget("a")
    assert outside.exists()


def test_a_file_that_vanishes_under_the_reader_is_computed(open_engine, prompt, never, monkeypatch):
    tokens, prefixes = prompt(320), [Prefix(300, ("a",))]
    writer = open_engine()
    read(writer.new_session(), tokens, prefixes, never)
    assert writer.snapshots.flush(30)
    reader = open_engine(snapshots_read_only=True)
    segments = reader._sharing.plan(tokens, prefixes, reader.rope_variants[0])
    load = reader.snapshots.load

    def vanishing(segment, pages, after):
        if segment.key == segments[1].key:
            Path(reader.snapshots._path(segment)).unlink()
        return load(segment, pages, after)

    monkeypatch.setattr(reader.snapshots, "load", vanishing)
    session, fresh = reader.new_session(), open_engine(snapshot_dir=None).new_session()
    assert read(session, tokens, prefixes, never).restored_tokens == 300 - CHUNK
    read(fresh, tokens, prefixes, never)
    assert_same(content(session, 320), content(fresh, 320))
    session.close()
    free = reader.memory()["free_pages"]
    assert free == reader.memory()["pool_pages"] - sum(
        len(kept.pages) for kept in reader._prefixes._kept.values()
    )


def test_an_error_of_the_device_while_restoring_gives_the_pages_back(open_engine, prompt, never, monkeypatch):
    tokens, prefixes = prompt(320), [Prefix(300, ("a",))]
    writer = open_engine()
    read(writer.new_session(), tokens, prefixes, never)
    assert writer.snapshots.flush(30)
    reader = open_engine(snapshots_read_only=True)

    def failing(*_):
        raise RuntimeError("device lost, on purpose")

    monkeypatch.setattr(reader.snapshots, "load", failing)
    session = reader.new_session()
    with pytest.raises(RuntimeError, match="on purpose"):
        read(session, tokens, prefixes, never)
    assert reader.memory()["free_pages"] == reader.memory()["pool_pages"]
