"""The engine: a loaded model, its page pool, and the one thread that uses the device.

Work comes as jobs, which run first in, first out; each yields events to whoever waits for them and can be cancelled.
Speaks token ids only.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from quest_core.config import TWO_LEVEL_SELECTIONS, EngineConfig, ModelConfig
from quest_core.decode_graph import GraphCapture, StepGraphs, run_eagerly
from quest_core.decoder import Decoder
from quest_core.model_folder import read_model_config
from quest_core.model_source import DEFAULT_CONTEXT_TOKENS, ModelError, find_model
from quest_core.page_selection import POLICIES
from quest_core.paged_kv_cache import PagePool, SequenceCache
from quest_core.session import Session
from quest_core.session_registry import SessionRegistry
from quest_core.step_operands import pack_operands, step_operands
from quest_core.stop_tokens import with_all_stop_tokens
from quest_core.stretch import Stretch
from quest_core.weights import DecoderWeights, free_memory_bytes, load_weights

PREFILL_CHUNK_TOKENS = {"cuda": 8192, "cpu": 512}
MIN_PREFILL_CHUNK_TOKENS = 512
# Of what the pool leaves free; the rest is for graphs and what the kernels need to work in.
PREFILL_SHARE_OF_FREE_MEMORY = 0.5
# Left free when the pool is planned: activations, the page's server and the rest of the system.
POOL_SHARE_OF_FREE_MEMORY = {"cuda": 0.85, "cpu": 0.5}
# A GPU has nothing better to do with its memory. On the CPU the pool takes no more than this or that share of what is
# free, except that one window must fit: the embedded model should leave a small machine usable.
CPU_POOL_BYTES, CPU_POOL_SHARE = 3 << 29, 1 / 16

_END = object()


class Cancellation:
    """Set by the consumer of a job, read by its work."""

    def __init__(self) -> None:
        self._event = threading.Event()

    @property
    def requested(self) -> bool:
        return self._event.is_set()

    def request(self) -> None:
        self._event.set()


class Job:
    """Work on the engine's thread. Iterate it for the events the work yields; its exceptions are raised here."""

    def __init__(self, work: Callable[[Cancellation], Iterator[Any]], engine: Engine) -> None:
        self._work = work
        self._engine = engine
        self._events: queue.SimpleQueue = queue.SimpleQueue()
        self._cancellation = Cancellation()
        self._error: BaseException | None = None
        self.done = False

    def cancel(self) -> None:
        """Ask the work to stop at its next chance; a job that has not started never will."""
        self._cancellation.request()

    @property
    def jobs_ahead(self) -> int:
        """Jobs that run or wait before this one; 0 when it runs or is done."""
        return self._engine._jobs_ahead(self)

    def next_event(self, timeout_s: float | None = None) -> Any:
        """Wait for the next event.

        Raises:
            TimeoutError: after `timeout_s`.
            StopIteration: when there are no more.
        """
        try:
            event = self._events.get(timeout=timeout_s)
        except queue.Empty:
            raise TimeoutError from None
        if event is _END:
            self._events.put(_END)  # so that asking again does not wait forever
            if self._error is not None:
                raise self._error
            raise StopIteration
        return event

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return self.next_event()

    def _run(self) -> None:
        try:
            if not self._cancellation.requested:
                for event in self._work(self._cancellation):
                    self._events.put(event)
        except BaseException as error:  # it belongs to whoever waits for the job
            self._error = error
        finally:
            self.done = True
            self._events.put(_END)


class Engine:
    """A model ready to answer. Use `Engine.load`."""

    def __init__(
        self,
        model_name: str,
        model_folder: Path,
        model_config: ModelConfig,
        config: EngineConfig,
        weights: DecoderWeights,
    ) -> None:
        self.model_name = model_name
        self.model_folder = model_folder
        self.model_config = model_config
        self.config = config
        self.device = weights.embedding.device
        self.dtype = weights.embedding.dtype
        self.page_size = config.page_size
        self._weights = weights
        # Where no precision is asked for, the CPU decodes from packed copies: its memory is what a step waits for.
        packs = self.device.type == "cpu" and config.dtype == "auto"
        self._operands = pack_operands(weights) if packs else step_operands(weights)
        kv_dtype = choose_kv_dtype(config.dtype, self.device, self.dtype)
        # Before the decoder and its RoPE tables, which are as long as the window: what does not fit is said here.
        self._pool = _plan_pool(model_config, config, self.device, kv_dtype)
        self._decoder = Decoder(model_config, weights, self._operands)
        self._policy = POLICIES[config.selection]
        self._stretches = self._plan_stretches()
        self._graphs = self._stretches[-1].graphs
        self._registry = SessionRegistry()
        self._pool.reclaim = self._registry.evict_idle
        self.prefill_chunk_tokens = config.prefill_chunk_tokens or _plan_chunk(model_config, self.device, self.dtype)
        self._jobs: list[Job] = []
        self._wake = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="quest-engine", daemon=True)
        self._thread.start()

    @classmethod
    def load(
        cls, model: str, config: EngineConfig, on_progress: Callable[[str], None] = lambda message: None
    ) -> Engine:
        """Find, read and place a model.

        Args:
            model: "embedded", a hub id, a folder or a .gguf file.
            config: device, precision, page size and window.
            on_progress: told in a few words what takes time.

        Raises:
            ModelError: if it cannot be found, is of a family not supported, does not fit the memory, or if the device
                cannot do what `config` asks for.
        """
        device = choose_device(config.device)
        if config.kv_bits == 8 and device.type != "cuda":
            raise ModelError("--kv-bits 8 needs a CUDA GPU: the CPU's kernels read no 8-bit keys. Use --kv-bits 16.")
        dtype = choose_dtype(config.dtype, device)
        name, folder = find_model(model, config.cache_dir, offline=config.offline, on_progress=on_progress)
        on_progress(f"Loading {name} on {device_name(device)}")
        try:
            model_config = with_all_stop_tokens(read_model_config(folder), folder)
            context_tokens = config.context_tokens or DEFAULT_CONTEXT_TOKENS.get(model)
            if context_tokens is not None:
                model_config = model_config.with_context(context_tokens)
        except ModelError:
            raise
        except ValueError as error:
            raise ModelError(str(error)) from error
        weights = load_weights(folder, model_config, device, dtype, config.weight_bits)
        engine = cls(name, folder, model_config, config, weights)
        if device.type == "cpu":
            on_progress("Preparing the decoder (compiled once)")
            engine._decoder.warm_up(engine._pool)
        return engine

    def _plan_stretches(self) -> tuple[Stretch, ...]:
        graphed = self.device.type == "cuda" and self._policy.capturable
        prepare = run_eagerly
        if graphed and not self.config.eager:
            prepare = GraphCapture(self.device)
        stretches = []
        for max_tokens, rope in self.model_config.ropes:
            decoder = self._decoder if rope == self.model_config.rope else self._decoder.with_rope(rope)
            graphs = StepGraphs(decoder, self._pool, self._policy, prepare) if graphed else None
            stretches.append(Stretch(max_tokens, decoder, graphs))
        return tuple(stretches)

    @property
    def context_tokens(self) -> int:
        """The usable window."""
        return self.model_config.context_tokens

    @property
    def trained_tokens(self) -> int:
        """The longest sequence that is read without stretching the model's own positions."""
        return self.model_config.trained_tokens

    @property
    def stretch_factor(self) -> float:
        """By how much positions in a sequence as long as the window are stretched; 1 if they are the model's own."""
        return self.model_config.stretch_factor

    @property
    def kv_dtype(self) -> torch.dtype:
        """Of keys and values as they are computed with; a cache of 8 bits rounds them further."""
        return self._pool.dtype

    @property
    def device_name(self) -> str:
        return device_name(self.device)

    def memory(self) -> dict[str, int]:
        """Pages of the pool, pages free, bytes of a page, bytes of the weights."""
        return {
            "pool_pages": self._pool.pages,
            "free_pages": self._pool.free_pages,
            "page_bytes": self._pool.bytes // self._pool.pages,
            "weight_bytes": self._weights.bytes + self._operands.copied_bytes,
        }

    def new_session(self) -> Session:
        """An empty sequence. Use it, and close it, only inside jobs."""
        cache = SequenceCache(self._pool, self.context_tokens)
        return Session(
            self._stretches, cache, self.prefill_chunk_tokens, self._registry, self._policy
        )

    def submit(self, work: Callable[[Cancellation], Iterator[Any]]) -> Job:
        """Queue `work` for the engine's thread.

        Raises:
            RuntimeError: after `close`.
        """
        job = Job(work, self)
        with self._wake:
            if self._closed:
                raise RuntimeError("the engine is closed")
            self._jobs.append(job)
            self._wake.notify()
        return job

    def close(self) -> None:
        """Cancel all jobs and end the thread."""
        with self._wake:
            self._closed = True
            for job in self._jobs:
                job.cancel()
            self._wake.notify()
        self._thread.join()
        self._decoder.close()

    def _serve(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._jobs or self._closed)
                if not self._jobs:
                    return
                job = self._jobs[0]
            self._registry.begin_job()
            job._run()
            with self._wake:
                self._jobs.remove(job)

    def _jobs_ahead(self, job: Job) -> int:
        with self._wake:
            return self._jobs.index(job) if job in self._jobs else 0


def choose_device(device: str) -> torch.device:
    """Resolve "auto", and check that the device is there.

    Raises:
        ModelError: if CUDA is asked for and absent.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ModelError("--device cuda was asked for, but torch sees no CUDA GPU. Use --device auto or cpu.")
    return torch.device("cpu" if device == "cpu" or not torch.cuda.is_available() else "cuda:0")


def choose_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """Resolve "auto": 16-bit wherever the processor multiplies it at full speed."""
    if dtype != "auto":
        return getattr(torch, dtype)
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    # Measured on a CPU with AVX512-BF16: 3x the speed of float32 in decoding, 6x in prefill.
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    fast = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return torch.bfloat16 if fast else torch.float32


def choose_kv_dtype(asked: str, device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """Of cached keys and values, before `kv_bits`: that of the model, except on the CPU with "auto"."""
    # Half the bytes of float32 and eight times the precision of bfloat16, whatever the CPU multiplies fastest.
    return torch.float16 if device.type == "cpu" and asked == "auto" else dtype


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU ({os.cpu_count()} cores)"


def plan_levels(config: EngineConfig, device: torch.device) -> int:
    """Levels of summaries: only a GPU's kernels look at a second one, and only for some policies."""
    return config.summary_levels if device.type == "cuda" and config.selection in TWO_LEVEL_SELECTIONS else 1


def _plan_chunk(model: ModelConfig, device: torch.device, dtype: torch.dtype) -> int:
    """Tokens of a prefill's chunk: as many as the device works well with, fewer where their activations do not fit."""
    chunk_tokens = PREFILL_CHUNK_TOKENS[device.type]
    # In an MLP: residual stream, its norm and the block's result; gate, up and their product.
    token_bytes = 3 * (model.hidden_size + model.intermediate_size) * dtype.itemsize
    free_bytes = free_memory_bytes(device) * PREFILL_SHARE_OF_FREE_MEMORY
    while chunk_tokens > MIN_PREFILL_CHUNK_TOKENS and chunk_tokens * token_bytes > free_bytes:
        chunk_tokens //= 2
    return chunk_tokens


def _plan_pool(
    model: ModelConfig, config: EngineConfig, device: torch.device, dtype: torch.dtype
) -> PagePool:
    policy = POLICIES[config.selection]
    layout = (dtype, policy.summary, config.summary_bits == 8, config.kv_bits, plan_levels(config, device))
    page_bytes = PagePool.page_bytes(model, config.page_size, *layout)
    window_pages = -(-model.context_tokens // config.page_size)
    unused_bytes = free_memory_bytes(device)
    free_bytes = int(unused_bytes * POOL_SHARE_OF_FREE_MEMORY[device.type])
    # One page more than the window, for the copy that a fork's first write makes.
    if (window_pages + 1) * page_bytes > free_bytes:
        fitting_tokens = max(0, free_bytes // page_bytes - 1) * config.page_size
        raise ModelError(
            f"A window of {model.context_tokens} tokens needs {window_pages * page_bytes / 2**30:.1f} GiB for its KV "
            f"cache and {free_bytes / 2**30:.1f} GiB can be used on {device}. Use --context-tokens {fitting_tokens}."
        )
    pages = (window_pages + 1) * config.cached_contexts
    if device.type == "cpu":
        several_bytes = max(CPU_POOL_BYTES, int(unused_bytes * CPU_POOL_SHARE))
        pages = min(pages, max(window_pages + 1, several_bytes // page_bytes))
    pages = min(pages, free_bytes // page_bytes)
    return PagePool(model, pages, config.page_size, device, *layout)
