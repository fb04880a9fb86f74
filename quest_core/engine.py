"""The engine: a loaded model, its page pool, and the one thread that uses the device.

Work comes as jobs (`quest_core.jobs`); each yields events to whoever waits for them and can be cancelled. Speaks token
ids only.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import torch

from quest_core.cache.cache_layout import cache_layout, page_bytes
from quest_core.cache.model_key import model_key
from quest_core.cache.page_transfer import PageTransfer
from quest_core.cache.paged_kv_cache import PagePool, SequenceCache
from quest_core.cache.prefixes import PrefixIndex
from quest_core.cache.snapshot_store import SnapshotStore
from quest_core.config import EngineConfig, ModelConfig
from quest_core.decode.attention import AttentionMethod, QuestMethod
from quest_core.decode.decode_graph import GraphCapture, StepGraphs, run_eagerly
from quest_core.decode.read_costs import costs_for
from quest_core.decode.round_graphs import RoundGraphs
from quest_core.decoder import Decoder
from quest_core.jobs import Cancellation as Cancellation  # whoever submits work has it from here
from quest_core.jobs import Job, JobQueue, Priority, Work
from quest_core.memory_plan import plan_chunk, plan_pages
from quest_core.model.decode_weights import as_decode_weights, pack_decode_weights
from quest_core.model.model_folder import read_model_config
from quest_core.model.model_source import DEFAULT_CONTEXT_TOKENS, ModelError, find_model
from quest_core.model.stop_tokens import with_all_stop_tokens
from quest_core.model.weights import DecoderWeights, free_memory_bytes, load_weights
from quest_core.prefill.prefix_sharing import PrefixSharing
from quest_core.rope_variant import RopeVariant
from quest_core.session import Session
from quest_core.session_registry import SessionRegistry


class Engine:
    """A model ready to answer. Use `Engine.load`.

    Attributes:
        weights, decode_weights: of the model; the same, or packed copies for decode steps.
        pool: the pages of all sessions.
        decoder: the model for sequences as long as the window.
        rope_variants: the model for sequences of each length, shortest first.
        quest_method: how sessions attend.
    """

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
        self.weights = weights
        # Where no precision is asked for, the CPU decodes from packed copies: its memory is what a step waits for.
        packs = self.device.type == "cpu" and config.dtype == "auto"
        self.decode_weights = pack_decode_weights(weights) if packs else as_decode_weights(weights)
        # Of keys and values as they are computed with; a cache of 8 bits rounds them further.
        self.kv_dtype = choose_kv_dtype(config.dtype, self.device, self.dtype)
        # Before the decoder and its RoPE tables, which are as long as the window: what does not fit is said here.
        self.pool = _plan_pool(model_config, config, self.device, self.kv_dtype)
        self.decoder = Decoder(model_config, weights, self.decode_weights)
        self.quest_method = QuestMethod(
            self.decoder.kernels,
            self.pool.layout,
            model_config.num_layers,
            model_config.softmax_scale,
            costs_for(self.device.type, model_config.num_query_heads // model_config.num_kv_heads),
        )
        self.rope_variants = self._plan_rope_variants()
        self._registry = SessionRegistry()
        self.prefill_chunk_tokens = config.prefill_chunk_tokens or plan_chunk(
            model_config, self.device.type, self.dtype, free_memory_bytes(self.device)
        )
        self._prefixes = PrefixIndex(self.pool)
        self.snapshots, self._sharing = self._open_sharing()
        self._jobs = JobQueue()
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
            engine.decoder.warm_up(engine.pool)
        return engine

    def _plan_rope_variants(self) -> tuple[RopeVariant, ...]:
        graphed = self.device.type == "cuda"
        prepare = run_eagerly
        if graphed and not self.config.eager:
            prepare = GraphCapture(self.device)
        variants = []
        for max_tokens, rope in self.model_config.ropes:
            decoder = self.decoder if rope == self.model_config.rope else self.decoder.with_rope(rope)
            graphs = StepGraphs(decoder, self.pool, prepare) if graphed else None
            rounds = RoundGraphs(decoder, self.pool, prepare) if graphed else None
            variants.append(RopeVariant(max_tokens, decoder, graphs, rounds))
        return tuple(variants)

    @property
    def context_tokens(self) -> int:
        """The usable window."""
        return self.model_config.context_tokens

    @property
    def trained_tokens(self) -> int:
        """The longest sequence that is read without stretching the model's own positions."""
        return self.model_config.trained_tokens

    @property
    def rope_factor(self) -> float:
        """By how much positions in a sequence as long as the window are stretched; 1 if they are the model's own."""
        return self.model_config.rope_factor

    @property
    def device_name(self) -> str:
        return device_name(self.device)

    def memory(self) -> dict[str, int]:
        """Pages of the pool, pages free, bytes of a page, bytes of the weights."""
        return {
            "pool_pages": self.pool.pages,
            "free_pages": self.pool.free_pages,
            "page_bytes": self.pool.bytes // self.pool.pages,
            "weight_bytes": self.weights.bytes + self.decode_weights.copied_bytes,
        }

    @property
    def sessions(self) -> tuple[Session, ...]:
        """Those that have been used and not closed."""
        return self._registry.sessions

    def new_session(self, method: AttentionMethod | None = None) -> Session:
        """An empty sequence. Use it, and close it, only inside jobs.

        Args:
            method: attends in the place of Quest, in evaluations; such a session shares no prefixes.
        """
        cache = SequenceCache(self.pool, self.context_tokens)
        sharing = self._sharing if method is None else None
        return Session(
            self.rope_variants, cache, self.prefill_chunk_tokens, self._registry, method or self.quest_method, sharing
        )

    def submit(self, work: Work, priority: Priority = Priority.ANSWER) -> Job:
        """Queue `work` for the engine's thread.

        Args:
            work: yields the job's events.
            priority: BACKGROUND work is paused at its events while an ANSWER waits. Its sessions may be emptied
                meanwhile: a prefill bears that, a decode does not.

        Raises:
            RuntimeError: after `close`.
        """
        return self._jobs.submit(work, priority)

    def forget(self, owner: str) -> None:
        """Keep nothing of `owner`'s prefixes, in the pool or on the disk; from any thread.

        What a session holds stays until it is closed. Work that still reads the owner's prefix must have ended.

        Raises:
            OSError: if a file cannot be removed.
        """
        self._prefixes.forget(owner)
        if self.snapshots is not None:
            self.snapshots.forget(owner)

    def close(self) -> None:
        """Cancel all jobs, write what is to be kept, if that does not take long, and end the threads."""
        self._jobs.close()
        self._thread.join()
        if self.snapshots is not None:
            self.snapshots.close()
        self._sharing.close()
        self.decoder.close()

    def _serve(self) -> None:
        while (job := self._jobs.wait()) is not None:
            self._registry.begin_job(job.number)
            if self.snapshots is not None:
                self.snapshots.step_back(job.priority == Priority.ANSWER)
            job.run(pause=lambda job=job: self._jobs.must_pause(job))
            if job.done:
                self._jobs.remove(job)
            if self.snapshots is not None:
                self.snapshots.step_back(False)

    def _open_sharing(self) -> tuple[SnapshotStore | None, PrefixSharing]:
        config, pool = self.config, self.pool
        root, transfer, store = "", None, None
        if config.snapshot_dir is not None:
            transfer = PageTransfer(pool)
            settings = {
                "device": self.device.type,
                "dtype": str(self.dtype),
                "weight_bits": config.weight_bits,
                "summary": pool.layout.summary.name,
                # Once a page could have two summaries. What was kept of pages with one is read as before.
                "summary_levels": 1,
                "page_size": pool.page_size,
                "pages": transfer.describe(),
            }
            try:
                root = model_key(self.model_folder, settings, config.snapshot_dir, not config.snapshots_read_only)
            except OSError as error:
                raise ModelError(f"The model's file {error.filename} cannot be read: {error.strerror}.") from error
            store = SnapshotStore(
                config.snapshot_dir, root, self.model_name, transfer, self._prefixes.give_back, config.snapshot_bytes,
                config.snapshots_read_only,
            )  # fmt: skip
        sharing = PrefixSharing(
            pool, self._registry, self.prefill_chunk_tokens, root, self._prefixes, transfer, store
        )
        return store, sharing


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


def _plan_pool(
    model: ModelConfig, config: EngineConfig, device: torch.device, dtype: torch.dtype
) -> PagePool:
    layout = cache_layout(model, config, dtype)
    each_bytes = page_bytes(layout, model.num_layers)
    pages = plan_pages(model, config, device.type, each_bytes, free_memory_bytes(device))
    return PagePool(layout, model.num_layers, pages, device)
