"""The names for the data, and that both devices offer every operator as the contract spells it."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

import kernels
from kernels import reference
from kernels.contract import SUMMARIES, CacheLayout, Kernels, LayerCache, PageBudget, SequenceView, WholeStep
from kernels.float8 import FLOAT8, widen

OPERATORS = [name for name, member in vars(Kernels).items() if inspect.isfunction(member) and not name.startswith("_")]
STEP_METHODS = ["__init__", "__call__", "with_rope", "close"]


def layout_of(summary="mean", dtype=torch.float16, summary_dtype=torch.int8):
    return CacheLayout(16, 2, 64, dtype, SUMMARIES[summary], summary_dtype)


@pytest.mark.parametrize(("summary", "vectors"), [("bounds", 2), ("mean", 1)])
def test_specs_are_what_a_cache_holds(summary, vectors):
    specs = layout_of(summary).specs(5)
    assert {name: spec.shape for name, spec in specs.items()} == {
        "key_pages": (5, 2, 16, 64),
        "value_pages": (5, 2, 16, 64),
        "summaries": (5, 2, vectors, 64),
        "summary_scales": (5, 2, vectors),
    }
    assert specs["key_pages"].bytes == 5 * 2 * 16 * 64 * 2
    assert specs["summaries"].bytes == 5 * 2 * vectors * 64
    assert specs["summary_scales"].dtype == torch.float32


def test_scales_belong_to_8_bits_alone():
    floating = layout_of(summary_dtype=torch.bfloat16)
    assert list(floating.specs(1)) == ["key_pages", "value_pages", "summaries"]
    assert not floating.is_float8 and not floating.has_int8_summaries
    float8 = layout_of(dtype=FLOAT8)
    assert float8.is_float8 and float8.has_int8_summaries
    specs = float8.specs(3)
    assert specs["key_scales"] == specs["value_scales"] == ((3, 2, 16), torch.float32)
    assert specs["key_pages"].bytes == 3 * 2 * 16 * 64


@pytest.mark.parametrize("dtype", [torch.float32, FLOAT8], ids=str)
def test_a_layer_is_a_view_of_the_cache_of_all(dtype):
    layout = layout_of(dtype=dtype)
    specs = layout.specs(3)
    cache = LayerCache(layout, **{name: torch.zeros((4, *shape)).to(dtype) for name, (shape, dtype) in specs.items()})
    layer = cache.layer(2)
    assert layer.layout is layout
    assert [(tensor.shape, tensor.dtype) for tensor in layer.tensors] == list(specs.values())
    layer.value_pages[1] = 1.0
    assert cache.value_pages[2, 1].float().eq(1.0).all()
    assert cache.value_pages.float().sum() == layer.value_pages[1].numel()
    assert (layer.key_scales is None) == (dtype != FLOAT8)


def test_keys_and_values_are_what_codes_stand_for():
    layout = layout_of(dtype=FLOAT8)
    generator = torch.Generator().manual_seed(0)
    cache = LayerCache(
        layout,
        **{name: torch.rand(shape, generator=generator).to(dtype) for name, (shape, dtype) in layout.specs(3).items()},
    )
    assert torch.equal(cache.keys_at(2, 1), widen(cache.key_pages, cache.key_scales)[2, 1])
    values = widen(cache.value_pages, cache.value_scales)
    assert torch.equal(cache.values_at(1, slice(None), slice(5)), values[1, :, :5])


def test_a_budget_holds_what_is_always_read():
    PageBudget(4, 1, 2).check()
    PageBudget(1, 0, 0).check()
    with pytest.raises(ValueError, match="a budget of 3 pages is less than"):
        PageBudget(3, 1, 2).check()


def test_a_view_has_the_pages_of_its_table():
    assert SequenceView(torch.zeros(7, dtype=torch.int32), torch.ones(1, dtype=torch.int32)).logical_pages == 7


def parameters(function):
    return list(inspect.signature(function).parameters)


def test_there_are_operators_to_compare():
    assert len(OPERATORS) == 18
    assert "choose_and_attend" in OPERATORS


@pytest.mark.parametrize("device", ["gpu", "cpu"])
def test_every_operator_has_the_parameters_of_the_contract(device):
    implementation = import_module(f"kernels.{device}")
    expected = {name: parameters(getattr(Kernels, name))[1:] for name in OPERATORS}
    assert {name: parameters(getattr(implementation, name)) for name in OPERATORS} == expected


def test_the_specification_has_the_parameters_of_the_contract():
    expected = {name: parameters(getattr(Kernels, name))[1:] for name in OPERATORS}
    assert {name: parameters(getattr(reference, f"naive_{name}")) for name in OPERATORS} == expected


def test_whole_steps_have_the_parameters_of_the_contract():
    gpu, cpu = import_module("kernels.gpu"), import_module("kernels.cpu")
    assert gpu.WholeStep is None
    for name in STEP_METHODS:
        # The CPU's may be told how many threads share it.
        ours = [parameter for parameter in parameters(getattr(cpu.WholeStep, name)) if parameter != "threads"]
        assert ours == parameters(getattr(WholeStep, name)), name
    for name in ("__init__", "__call__"):
        assert parameters(getattr(reference.NaiveWholeStep, name)) == parameters(getattr(WholeStep, name))


@pytest.mark.parametrize("module", ["kernels.cpu", "kernels.reference"])
def test_no_triton_where_there_is_no_gpu(module):
    """It is not even installed there."""
    program = f"import sys; sys.modules['triton'] = None; import {module}"
    root = Path(kernels.__file__).parents[1]
    outcome = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stderr
