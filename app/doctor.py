"""`doctor`: what this machine has, and what is wrong with it.

Looks and reports; changes nothing, unless it is asked to verify: then it repairs what is kept. What it cannot import it
names instead of failing.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import platform
import shutil
import sys
from pathlib import Path

from app.errors import UserFacingError
from app.settings import AppSettings
from app.store.inspection import StorageSizes, storage_sizes, verify_storage
from app.web.free_port import ensure_port_is_free

GIB = 1 << 30
PACKAGES = (
    "torch",
    "triton",
    "transformers",
    "accelerate",
    "safetensors",
    "gguf",
    "numba",
    "llama-index-core",
    "SQLAlchemy",
    "pypdf",
    "pypdfium2",
    "gradio",
)
# Without these there is no answer at all; without the others a part of the app is missing.
ESSENTIAL = {"torch", "transformers", "accelerate", "safetensors", "numba"}


def run_doctor(settings: AppSettings, as_json: bool, verify: bool = False) -> int:
    """Print the report; returns 1 if something essential is wrong.

    Args:
        settings: names the data folder, the model and the address.
        as_json: print one JSON object.
        verify: read everything that is kept, which takes a second for each gigabyte or two, and repair what can be.
    """
    report, problems = examine(settings)
    faults = list(verify_storage(settings.data_dir)) if verify else []
    # After that: what was damaged may have been mended.
    sizes = storage_sizes(settings.data_dir)
    report |= _told_sizes(sizes)
    problems += [(fault.message, not fault.is_repaired) for fault in faults]
    if sizes.fault and not faults:
        problems.append((f"{sizes.fault} `python launch.py doctor --verify` tells more.", True))
    if verify:
        report["verified"] = f"{len(faults)} fault{'s' * (len(faults) > 1)}" if faults else "all that is kept is whole"
    if as_json:
        figures = {**report, "storage": sizes.to_json(), "problems": [text for text, _ in problems]}
        print(json.dumps(figures, indent=2))
    else:
        width = max(map(len, report)) + 2
        for name, value in report.items():
            print(f"{name:<{width}}{value}")
        for text, essential in problems:
            print(f"{'PROBLEM' if essential else 'note'}: {text}")
        if not problems:
            print("Nothing is wrong.")
    return 1 if any(essential for _, essential in problems) else 0


def examine(settings: AppSettings) -> tuple[dict[str, str], list[tuple[str, bool]]]:
    """Look at everything.

    Returns:
        What was found, by name; and the problems, each a sentence and whether it is essential.
    """
    report = {"python": f"{platform.python_version()} ({sys.executable})", "system": platform.platform()}
    problems: list[tuple[str, bool]] = []
    for package in PACKAGES:
        try:
            report[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            report[package] = "not installed"
            if package != "triton" or sys.platform == "linux":
                hint = "run `python launch.py` once without --skip-install"
                problems.append((f"{package} is not installed; {hint}.", package in ESSENTIAL))
    _examine_processors(report, problems)
    _examine_model(settings, report, problems)
    _examine_storage(settings, report, problems)
    _examine_recognition(settings, report)
    try:
        ensure_port_is_free(settings.host, settings.port)
        report["port"] = f"{settings.port} is free"
    except UserFacingError as error:
        report["port"] = f"{settings.port} is not free"
        problems.append((str(error), False))
    return report, problems


def _told_sizes(sizes: StorageSizes) -> dict[str, str]:
    """What is kept in the data folder, for people."""
    snapshots = ", ".join(f"{name}: {_told_bytes(size)}" for name, size in sizes.snapshots.items())
    models = ", ".join(f"{name}: {_told_bytes(size)}" for name, size in sizes.models.items())
    copies = f", {_told_bytes(sizes.database_copies)} in older copies" if sizes.database_copies else ""
    return {
        "documents": f"{sizes.document_count:,}, {_told_bytes(sizes.documents)}",
        "conversations": f"{sizes.conversation_count:,}",
        "database": f"{_told_bytes(sizes.database)}{copies}",
        "snapshots": f"{_told_bytes(sum(sizes.snapshots.values()))}{f' ({snapshots})' if snapshots else ''}",
        "converted_models": f"{_told_bytes(sum(sizes.models.values()))}{f' ({models})' if models else ''}",
        "used_by": str(sizes.holder) if sizes.holder else "no running Quest Chat",
    }


def _told_bytes(size: int) -> str:
    for unit, name in ((GIB, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} bytes"


def _examine_processors(report: dict[str, str], problems: list[tuple[str, bool]]) -> None:
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        problems.append((f"torch cannot be imported: {error}", True))
        return
    memory = importlib.import_module("psutil").virtual_memory()
    report["cpu"] = f"{os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    report["cpu_features"] = ", ".join(
        name for name in ("avx2", "avx512_f", "avx512_bf16", "avx512_vnni", "amx_bf16") if capabilities.get(name)
    )
    report["memory"] = f"{memory.available / GIB:.1f} GiB of {memory.total / GIB:.1f} GiB available"
    if memory.available < 2 * GIB:
        problems.append(("less than 2 GiB of memory are available; close other programs.", False))
    if torch.cuda.is_available():
        free_bytes, total_bytes = torch.cuda.mem_get_info(0)
        properties = torch.cuda.get_device_properties(0)
        report["gpu"] = (
            f"{properties.name}, compute capability {properties.major}.{properties.minor}, "
            f"{free_bytes / GIB:.1f} GiB of {total_bytes / GIB:.1f} GiB free, CUDA {torch.version.cuda}"
        )
        if properties.major < 8:
            problems.append(("the GPU is older than those the kernels are made for (8.0).", False))
    else:
        report["gpu"] = "none seen by torch; answers come from the CPU"
        if shutil.which("nvidia-smi"):
            problems.append(("an NVIDIA driver is here but torch sees no GPU: is it the CPU build of torch?", False))


def _examine_recognition(settings: AppSettings, report: dict[str, str]) -> None:
    try:
        tesseract = importlib.import_module("app.library.tesseract")
        recognition = tesseract.find_recognition(settings.ocr_languages)
        report["text_recognition"] = f"{recognition.program} ({recognition.languages})"
    except UserFacingError as error:
        # Who has no scans needs none.
        report["text_recognition"] = f"none. {error.message}"
    except ImportError:
        # A package is missing, which is said above.
        report["text_recognition"] = "unknown"


def _examine_model(settings: AppSettings, report: dict[str, str], problems: list[tuple[str, bool]]) -> None:
    try:
        from quest_core.model.model_source import EMBEDDED_MODEL, embedded_model_path
    except ImportError as error:
        problems.append((f"the engine cannot be imported: {error}", True))
        return
    path = embedded_model_path()
    report["embedded_model"] = str(path) if path else "not installed"
    if path is None and settings.model == EMBEDDED_MODEL:
        problems.append(("the embedded model is not installed; run `python launch.py` or name one with --model.", True))
    converted = sorted(folder.name for folder in settings.cache_dir.glob("*") if (folder / "config.json").is_file())
    report["model_cache"] = f"{settings.cache_dir} ({', '.join(converted) or 'empty'})"


def _examine_storage(settings: AppSettings, report: dict[str, str], problems: list[tuple[str, bool]]) -> None:
    folder = settings.data_dir
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free_bytes = shutil.disk_usage(existing).free
    report["data_folder"] = f"{folder} ({free_bytes / GIB:.1f} GiB free)"
    if not os.access(existing, os.W_OK):
        problems.append((f"the data folder {folder} cannot be written; choose another with --data-dir.", True))
    if free_bytes < GIB:
        problems.append((f"less than 1 GiB of disk space is free at {Path(existing)}.", False))
