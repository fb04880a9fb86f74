"""Decode weights: what a decode step multiplies with, the weights as they were loaded or packed copies of them.

A step reads every weight once, so that on a CPU their bytes are its time; prefill, which uses a weight many times, is
faster with floats. Knows nothing of how products are computed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kernels.contract import LayerDecodeWeights, Matrix, PackedMatrix
from quest_core.model.quantization import QuantizedMatrix, quantize_finely
from quest_core.model.weights import QUANTIZED, DecoderWeights, LayerWeights


@dataclass(frozen=True)
class DecodeWeights:
    """The weights of all layers and of the head, as a decode step takes them.

    Args:
        copied_bytes: of what they hold besides the model's own tensors.
    """

    layers: list[LayerDecodeWeights]
    head: Matrix
    copied_bytes: int = 0


def as_decode_weights(weights: DecoderWeights) -> DecodeWeights:
    """The weights as they are."""
    return DecodeWeights([_layer_decode_weights(layer) for layer in weights.layers], weights.head)


def pack_decode_weights(weights: DecoderWeights) -> DecodeWeights:
    """Copies in 8 bits, or in 4 where these lose no more; matrices that are quantised already stay."""
    from kernels.cpu_tools.large_pages import move_together

    as_loaded = as_decode_weights(weights)
    packed: list[QuantizedMatrix] = []

    def pack(matrix: Matrix) -> Matrix | int:
        """The matrix if it is quantised, else the index of its copy."""
        if isinstance(matrix, PackedMatrix):
            return matrix
        packed.append(quantize_finely(matrix))
        return len(packed) - 1

    of_layers = [[pack(getattr(layer, name)) for name in QUANTIZED] for layer in as_loaded.layers]
    head = pack(as_loaded.head)
    # In the order in which a step reads them.
    parts = [part for matrix in packed for part in matrix.packed_matrix[:3]]
    moved = iter(move_together(parts))
    copies = [PackedMatrix(next(moved), next(moved), next(moved), matrix.bits) for matrix in packed]

    def copy_of(matrix: Matrix | int) -> Matrix:
        return copies[matrix] if isinstance(matrix, int) else matrix

    layers = [
        layer._replace(**dict(zip(QUANTIZED, map(copy_of, own), strict=True)))
        for layer, own in zip(as_loaded.layers, of_layers, strict=True)
    ]
    return DecodeWeights(layers, copy_of(head), sum(part.nbytes for part in parts))


def _layer_decode_weights(layer: LayerWeights) -> LayerDecodeWeights:
    def as_matrix(matrix: torch.Tensor | QuantizedMatrix) -> Matrix:
        return matrix.packed_matrix if isinstance(matrix, QuantizedMatrix) else matrix

    return LayerDecodeWeights(
        layer.attention_norm,
        as_matrix(layer.qkv),
        as_matrix(layer.output),
        layer.mlp_norm,
        as_matrix(layer.gate_up),
        as_matrix(layer.down),
        layer.qkv_bias,
        layer.output_bias,
        layer.query_norm,
        layer.key_norm,
    )
