"""`bench cpu`: ours dense, Exact and Quest, Transformers and, where asked for, llama.cpp on the CPU, in one process.

At each context length every contestant is loaded, prefills the same book once, and then decodes in turn with the
others, so that a machine that slows down slows all of them. Before anything is timed, one short context is run and
thrown away: it warms up libraries and compilers, and ours must round about as Transformers does. Decoding is timed
token by token as `generate` does it: a call of the model, the likeliest token, its id on the host.

Peak memory is what a contestant added to the process, see `app.measure.benchmarks.instruments.process_memory`: its
model's weights, its cache, and what its prefill and its steps took for a while. Interpreter, libraries and compiled
code, about half a GiB that the warm-up has brought in already, are in none of the figures. Dense and Quest share one
engine and prefill.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from app.measure.benchmarks.cpu_contender import Contender, DraftCount, decode_exact, decode_llamacpp, decode_ours
from app.measure.benchmarks.decode import WARM_UP_STEPS, decode_transformers
from app.measure.benchmarks.instruments.process_memory import MemoryAccount
from app.measure.benchmarks.instruments.timing import free_device_memory
from app.measure.benchmarks.kernels import relative_error
from app.measure.benchmarks.rivals.llamacpp_rival import LlamaCppModel, find_gguf, require_llamacpp
from app.measure.benchmarks.rivals.logits_check import (
    LAST_TOKENS,
    STRETCH_TOKENS,
    STRETCHES,
    RoundingCheck,
    check_last_logits,
    check_logits,
    check_rounding,
    our_last_logits,
)
from app.measure.benchmarks.rivals.transformers_rival import last_logits, load_transformers, run_prefill
from app.measure.benchmarks.subjects.subjects import LoadedSubject
from app.measure.evaluation.perplexity import score_text
from app.measure.machine import describe_machine
from app.measure.sample_text import read_book, repeat_tokens
from app.settings import AppSettings
from quest_core.config import QuestConfig
from quest_core.engine import Cancellation, Engine
from quest_core.model.model_source import ModelError, find_model
from quest_core.session import Session

RIVALS = {"transformers-bf16": torch.bfloat16, "transformers-fp32": torch.float32}
# A rival that would read longer than this, by its speed at the context before, is left out: bfloat16 takes that long on
# processors that do not multiply it.
MAX_PREFILL_S = 900.0
# Read once before anything is timed, and decoded for this many steps.
WARM_UP_CONTEXT, WARM_UP_MEASURED_STEPS = STRETCH_TOKENS, 1


@dataclass
class CpuComparison:
    """What is compared, at whatever context.

    Args:
        settings: of ours, and which model.
        budgets: of Quest.
        rivals: names in RIVALS.
        gguf: the file for llama.cpp; None leaves it out.
        tokens: of the book; as many as the longest context.
        on_progress: told in a few words what takes time.

    Attributes:
        checks: of the logits, as they are made.
        skipped: who was left out at which context, and why.
    """

    settings: AppSettings
    budgets: Sequence[int]
    rivals: tuple[str, ...]
    gguf: Path | None
    tokens: list[int]
    on_progress: Callable[[str], None]
    checks: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[dict[str, Any]] = field(default_factory=list)
    _token_s: dict[str, float] = field(default_factory=dict)  # of each rival's last prefill
    _rounding: RoundingCheck | None = None  # once it is warm

    def warm_up(self) -> None:
        """Load and run everything once, briefly, and check ours.

        Raises:
            UserFacingError: if ours does not give Transformers' logits.
        """
        self.on_progress("warming up, and checking ours against Transformers")
        self.run(WARM_UP_CONTEXT, WARM_UP_MEASURED_STEPS, rounds=1, scored_tokens=0)
        self._token_s.clear()  # the first call of everything is no measure

    def run(
        self, context: int, steps: int, rounds: int, scored_tokens: int
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Measure one context length.

        Args:
            context: tokens to prefill.
            steps: decoded in each round.
            rounds: in which all contestants decode in turn.
            scored_tokens: the last ones of the context, scored dense and with Quest; 0 leaves that out.

        Returns:
            The rows and the agreement of Quest with dense.
        """
        # The models of the context before, in cycles; freed while this one loads they would count against it.
        free_device_memory(torch.device("cpu"))
        memory = MemoryAccount()
        with memory.work():
            engine = LoadedSubject(self.settings, lambda message: None).engine(context + WARM_UP_STEPS + steps + 1)

        def work(cancellation: Cancellation) -> Iterator[Any]:
            # On the engine's thread, the rivals too: torch keeps a pool of threads for each caller.
            session = engine.new_session()
            if self._rounding is None:
                self._rounding = check_rounding(engine, self.tokens)
                self.checks.append(self._rounding.to_json(STRETCH_TOKENS, STRETCHES))
            contenders = list(self._contenders(engine, session, memory, context))
            for round_number in range(rounds):
                self.on_progress(f"{context} tokens: decoding, round {round_number + 1} of {rounds}")
                for contender in contenders:
                    if round_number:
                        contender.times += contender.decode(steps)
                        continue
                    with contender.memory.work():
                        contender.times += contender.decode(steps)
            rows = [contender.row(context) for contender in contenders]
            del contenders  # and with them the rivals' models
            yield rows, self._agreement(session, context, scored_tokens)

        try:
            return next(engine.submit(work))
        finally:
            engine.close()

    def _contenders(self, engine: Engine, session: Session, memory: MemoryAccount, context: int) -> Iterator[Contender]:
        """Load and prefill, one after the other."""
        tokens = self.tokens[:context]
        self.on_progress(f"{context} tokens: prefill of ours")
        with memory.work():
            start = time.perf_counter()
            for _ in session.prefill(tokens, Cancellation(), engine.context_tokens - context):
                pass
            prefill_s = time.perf_counter() - start
        for quest in [QuestConfig(attention="dense"), *map(self._quest, self.budgets)]:
            budget = quest.token_budget if quest.attention == "quest" else None
            decode = partial(decode_ours, session, quest)
            of_row = memory.copy()
            yield Contender("quest-chat", quest.attention, _dtype_name(engine.dtype), budget, of_row, prefill_s, decode)
        default = self._quest(QuestConfig.token_budget)
        decode, of_row = partial(decode_ours, session, replace(default, attention="auto")), memory.copy()
        yield Contender("quest-chat", "auto", _dtype_name(engine.dtype), None, of_row, prefill_s, decode)
        exact, drafts = replace(default, attention="exact"), DraftCount()
        decode, of_row = partial(decode_exact, session, exact, drafts), memory.copy()
        yield Contender("quest-chat", "exact", _dtype_name(engine.dtype), None, of_row, prefill_s, decode, drafts)
        theirs: dict[torch.dtype, torch.Tensor] = {}
        for name in self.rivals:
            if (expected_s := self._token_s.get(name, 0.0) * context) > MAX_PREFILL_S:
                reason = f"its prefill would take more than {expected_s:.0f} s"
                self.skipped.append({"engine": name, "context_tokens": context, "reason": reason})
                continue
            self.on_progress(f"{context} tokens: prefill of {name}")
            dtype, rival_memory = RIVALS[name], MemoryAccount()
            with rival_memory.work():
                model = load_transformers(engine.model_folder, engine.model_config, engine.device, dtype)
                output, prefill_s = run_prefill(model, tokens)
            self._token_s[name] = prefill_s / context
            theirs[dtype] = last_logits(model, output, tokens[1:][-LAST_TOKENS:])
            decode = partial(decode_transformers, model, output)
            yield Contender("transformers", "sdpa", _dtype_name(dtype), None, rival_memory, prefill_s, decode)
            del model, output, decode
        self._check(session, tokens, theirs, engine.dtype)
        if self.gguf is not None:
            self.on_progress(f"{context} tokens: prefill of llama.cpp")
            rival_memory = MemoryAccount()
            with rival_memory.work():
                llama = LlamaCppModel(self.gguf, engine.model_config, torch.get_num_threads())
                prefill_s = llama.prefill(tokens)
            # Its own formats round more than ours, so this is told and not judged.
            error = relative_error(llama.logits(), session.logits)
            self.checks.append({"context_tokens": context, "engine": "llama.cpp", "logits_relative_error": error})
            decode = partial(decode_llamacpp, llama)
            formats = self.gguf.stem.rpartition(".")[2].lower()  # as files are named: "model.Q4_1.gguf"
            yield Contender("llama.cpp", "dense", formats, None, rival_memory, prefill_s, decode)

    def _check(
        self, session: Session, tokens: list[int], theirs: dict[torch.dtype, torch.Tensor], dtype: torch.dtype
    ) -> None:
        """Compare ours, in `dtype`, with those of Transformers that took part, as far as their precisions let us judge.

        Raises:
            UserFacingError: if ours is wrong.
        """
        if dtype not in theirs:
            return
        context, last = len(tokens), theirs[dtype][-1]
        if dtype == torch.float32:
            self.checks.append(check_logits(session.logits, last, context, self._rounding.limit))
        elif torch.float32 in theirs:
            ours = our_last_logits(session, tokens, len(theirs[dtype]))
            self.checks.append(check_last_logits(ours, theirs[dtype], theirs[torch.float32], context, dtype))
        else:
            # Both have rounded, and nobody knows which is further off: this is told and not judged.
            error = relative_error(session.logits, last)
            self.checks.append({"context_tokens": context, "logits_relative_error": error})

    def _quest(self, budget: int) -> QuestConfig:
        return QuestConfig(token_budget=budget, dense_layers=self.settings.dense_layers)

    def _agreement(self, session: Session, context: int, scored_tokens: int) -> list[dict[str, Any]]:
        """Perplexity of the context's last tokens, fed one by one through dense decoding and through Quest's."""
        scored_tokens = min(scored_tokens, context // 2)
        if not scored_tokens:
            return []
        self.on_progress(f"{context} tokens: scoring {scored_tokens} of them")
        before, scored = self.tokens[: context - scored_tokens], self.tokens[context - scored_tokens : context]
        # The cache has them; this cuts off what follows, with as much room as before, or they would be read again.
        list(session.prefill(before, Cancellation(), session.max_tokens - len(before)))
        dense, _ = score_text(session, scored, QuestConfig(attention="dense"), Cancellation())
        agreement = []
        for budget in self.budgets:
            perplexity, _ = score_text(session, scored, self._quest(budget), Cancellation())
            agreement.append(
                {
                    "context_tokens": context,
                    "token_budget": budget,
                    "scored_tokens": scored_tokens,
                    "dense_perplexity": dense,
                    "quest_perplexity": perplexity,
                    "ratio": perplexity / dense,
                }
            )
        return agreement


def measure_cpu(
    settings: AppSettings,
    *,
    contexts: Sequence[int],
    budgets: Sequence[int],
    steps: int,
    rounds: int,
    rivals: tuple[str, ...],
    with_llamacpp: bool,
    scored_tokens: int,
    text: Path | None,
    on_progress: Callable[[str], None] = lambda message: None,
) -> dict[str, Any]:
    """Measure prefill, decoding, memory and agreement at each context length.

    Args:
        settings: of ours; the CPU is used whatever device they name.
        scored_tokens: for the agreement, at most half of a context; 0 leaves it out.
        text: what is read, repeated where it is too short; None takes the sample book.

    Returns:
        `rows` (engine, attention, dtype, context_tokens, token_budget, prefill_tokens_per_s, decode_tokens_per_s,
        peak_memory_bytes, accepted_share: of the tokens that "exact" drafted), `agreement` (perplexity of the context's
        last tokens both ways; `text_repeats` where they were read before, which makes them easy), `checks`, `skipped`
        (what did not fit the memory, or would have taken too long) and `machine`.

    Raises:
        UserFacingError: if ours does not give Transformers' logits, or llama.cpp is asked for and not there.
    """
    from transformers import AutoTokenizer

    settings = replace(settings, device="cpu")
    gguf = None
    if with_llamacpp:
        require_llamacpp()
        gguf = find_gguf(settings.model)
    model_name, folder = find_model(
        settings.model, settings.cache_dir, offline=settings.offline, on_progress=on_progress
    )
    book = read_book(AutoTokenizer.from_pretrained(folder), text)
    tokens = repeat_tokens(book, max(*contexts, WARM_UP_CONTEXT))
    comparison = CpuComparison(settings, budgets, rivals, gguf, tokens, on_progress)
    comparison.warm_up()
    rows: list[dict[str, Any]] = []
    agreement: list[dict[str, Any]] = []
    for context in contexts:
        try:
            of_context = comparison.run(context, steps, rounds, scored_tokens)
        except (ModelError, MemoryError) as error:
            comparison.skipped.append({"context_tokens": context, "reason": str(error)})
            continue
        rows += of_context[0]
        agreement += [row | {"text_repeats": context > len(book)} for row in of_context[1]]
    return {
        "benchmark": "cpu",
        "model": model_name,
        "page_size": settings.page_size,
        "selection": settings.selection,
        "weight_bits": settings.weight_bits,
        "steps": steps,
        "rounds": rounds,
        "machine": describe_machine(torch.device("cpu")),
        "checks": comparison.checks,
        "skipped": comparison.skipped,
        "agreement": agreement,
        "rows": rows,
    }


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
