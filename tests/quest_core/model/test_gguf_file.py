"""Headers of GGUF files: every count, length and offset may lie, and several files may be one model."""

from __future__ import annotations

import random
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from quest_core.model.gguf_conversion import convert_gguf
from quest_core.model.gguf_file import gguf_name, gguf_parts, read_gguf
from quest_core.model.model_source import ModelError, find_model

pytest.importorskip("gguf")  # only those who read such files need it

HUGE = 1 << 62


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def header(values: list[bytes] = (), tensors: list[bytes] = (), counts: tuple[int, int] | None = None) -> bytes:
    tensor_count, value_count = counts or (len(tensors), len(values))
    return b"GGUF" + struct.pack("<IQQ", 3, tensor_count, value_count) + b"".join([*values, *tensors])


def tensor(name: str, shape: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def array(key: str, kind: int, length: int, items: bytes = b"") -> bytes:
    return text(key) + struct.pack("<IIQ", 9, kind, length) + items


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "ends too early"),
        (b"GGUF\3", "ends too early"),
        (b"PK\3\4" + bytes(60), "does not begin as a GGUF file"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "little-endian versions 2 and 3"),
        (header(counts=(0, HUGE)), "no model has"),
        (header(counts=(HUGE, 0)), "no model has"),
        (header(counts=(1000, 0)) + bytes(1000), "ends too early for the 1000 tensors"),
        (header([struct.pack("<Q", HUGE) + bytes(20)]), "ends too early"),
        (header([array("a", 0, HUGE)]), "more than any model"),
        (header([array("a", 12, 1 << 20)]), "ends too early for the 1048576 values of a"),
        (header([array("a", 8, 1 << 20)]), "ends too early for the 1048576 texts of a"),
        (header([array("a", 8, 1, struct.pack("<Q", 1 << 40))]), "longer than any token"),
        (header([array("a", 8, 1, struct.pack("<Q", 100) + b"short")]), "ends too early"),
        (header([array("a", 9, 1, bytes(40))]), "array of the unknown type 9"),
        (header([text("a") + struct.pack("<I", 77) + bytes(9)]), "unknown type 77"),
        (header([text("a") + struct.pack("<IQ", 8, 2) + b"\xff\xfe"]), "a text in its header that is none"),
        (header([text("a") + struct.pack("<IB", 0, 1)] * 2), "has a twice"),
        (header([text("general.alignment") + struct.pack("<II", 4, 3)]), "general.alignment 3"),
        (header([text("general.alignment") + struct.pack("<If", 6, 32.0)]), "general.alignment 32.0"),
        (header(tensors=[tensor("t", (4,)), tensor("t", (4,))]) + bytes(99), "the tensor t twice"),
        (header(tensors=[tensor("t", (4,) * 5)]) + bytes(99), "5 dimensions"),
        (header(tensors=[tensor("t", ())]) + bytes(99), "0 dimensions"),
        (header(tensors=[tensor("t", (0, 4))]) + bytes(99), "shape"),
        (header(tensors=[tensor("t", (33,), kind=2)]) + bytes(99), "Q4_0 cannot have"),
        (header(tensors=[tensor("t", (4,), kind=999)]) + bytes(99), "unknown type 999"),
        (header(tensors=[tensor("t", (4,), offset=HUGE)]) + bytes(99), "ends too early for the tensor t"),
        # Their product is 0 in 64 bits.
        (header(tensors=[tensor("t", (1 << 32, 1 << 32))]) + bytes(99), "ends too early for the tensor t"),
        (header(tensors=[tensor(name, (16,)) for name in "abcdef"]) + bytes(99), "ends too early for the tensor b"),
    ],
)
def test_what_a_header_says_is_held_against_the_file(tmp_path, content, complaint):
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=complaint):
        read_gguf((path,))
    with pytest.raises(ModelError, match="model.gguf cannot be read as a GGUF model"):
        find_model(str(path), tmp_path / "cache")


def test_a_damaged_file_is_refused_and_nothing_else(tmp_path, write_gguf):
    content = write_gguf(tmp_path / "whole.gguf").read_bytes()
    header_bytes = content.index(b"token_embd") + 1000
    path, chance = tmp_path / "damaged.gguf", random.Random(0)
    for _ in range(100):
        damaged = bytearray(content[: chance.choice([len(content), chance.randrange(len(content))])])
        for _ in range(chance.randrange(4)):
            at = chance.randrange(min(header_bytes, len(damaged)) or 1)
            damaged[at : at + 8] = chance.choice([chance.randbytes(8), b"\xff" * 8, bytes(8)])
        path.write_bytes(damaged)
        try:
            read_gguf((path,))
        except ValueError as error:
            assert str(error)


def test_tensors_are_views_of_the_file(tmp_path, write_gguf):
    norm = np.arange(64, dtype=np.float32)
    file = read_gguf((write_gguf(tmp_path / "model.gguf", tensors={"output_norm.weight": norm}),))
    assert file.metadata["general.architecture"] == "llama"
    assert file.metadata["tokenizer.ggml.tokens"] == 259
    assert file.tensors["blk.1.ffn_down.weight"].shape == (64, 96)
    np.testing.assert_array_equal(file.tensors["output_norm.weight"].data.view(np.float32), norm)


def test_parts_are_joined_whichever_is_named(tmp_path, write_gguf):
    whole = convert_gguf(write_gguf(tmp_path / "whole.gguf"), tmp_path / "cache")
    parts = [write_gguf(tmp_path / f"big-0000{i + 1}-of-00003.gguf", part=(i, 3)) for i in range(3)]
    assert gguf_parts(parts[1]) == tuple(parts)
    assert gguf_name(parts[1]) == "big"
    name, folder = find_model(str(parts[2]), tmp_path / "cache")
    assert name == "big"
    assert find_model(str(parts[0]), tmp_path / "cache") == (name, folder)
    expected, joined = (load_file(each / "model.safetensors") for each in (whole, folder))
    assert expected.keys() == joined.keys()
    assert all(torch.equal(expected[name], joined[name]) for name in expected)
    for file in ("config.json", "tokenizer.json", "quest_config.json"):
        assert (folder / file).read_text() == (whole / file).read_text()


def test_a_missing_or_strange_part_is_named_before_any_work(tmp_path, write_gguf):
    first = write_gguf(tmp_path / "big-00001-of-00002.gguf", part=(0, 2))

    def complaint(path):
        with pytest.raises(ModelError) as caught:
            find_model(str(path), tmp_path / "cache")
        assert not list((tmp_path / "cache").glob("*/*"))
        return str(caught.value)

    assert "big-00002-of-00002.gguf is not beside it" in complaint(first)
    second = tmp_path / "big-00002-of-00002.gguf"
    second.write_bytes(first.read_bytes())
    assert "calls itself part 1 of 2, and is taken as part 2 of 2" in complaint(first)
    write_gguf(second, tensors={"blk.7.attn_norm.weight": np.zeros(64, np.float32)}, part=(1, 2))
    assert "hold" in complaint(first)
    renamed = first.rename(tmp_path / "renamed.gguf")
    assert "calls itself part 1 of 2, and is taken as part 1 of 1" in complaint(renamed)
