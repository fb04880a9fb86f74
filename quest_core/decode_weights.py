"""What a decode step multiplies with: the weights as they were loaded, or packed copies of them.

A step reads every weight once, so that on a CPU their bytes are its time; prefill, which uses a weight many times, is
faster with floats. Knows nothing of how products are computed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kernels.contract import LayerOperands, Matrix, PackedMatrix
from quest_core.quantization import QuantizedMatrix, quantize_finely
from quest_core.weights import QUANTIZED, DecoderWeights, LayerWeights


@dataclass(frozen=True)
class DecodeWeights:
    """Those of all layers and of the head.

    Args:
        copied_bytes: of what they hold besides the model's own tensors.
    """

    layers: list[LayerOperands]
    head: Matrix
    copied_bytes: int = 0


def as_decode_weights(weights: DecoderWeights) -> DecodeWeights:
    """The weights as they are."""
    return DecodeWeights([_layer_operands(layer) for layer in weights.layers], weights.head)


def pack_decode_weights(weights: DecoderWeights) -> DecodeWeights:
    """Copies in 8 bits, or in 4 where these lose no more; matrices that are quantised already stay."""
    from kernels.cpu_tools.large_pages import move_together

    as_loaded = as_decode_weights(weights)
    packed: list[QuantizedMatrix] = []

    def pack(matrix: Matrix) -> Matrix | int:
        """The matrix if it is quantised, else the place of its copy."""
        if isinstance(matrix, PackedMatrix):
            return matrix
        packed.append(quantize_finely(matrix))
        return len(packed) - 1

    places = [[pack(getattr(layer, name)) for name in QUANTIZED] for layer in as_loaded.layers]
    head = pack(as_loaded.head)
    # In the order in which a step reads them.
    parts = [part for matrix in packed for part in matrix.operand[:3]]
    moved = iter(move_together(parts))
    copies = [PackedMatrix(next(moved), next(moved), next(moved), matrix.bits) for matrix in packed]

    def copy_of(place: Matrix | int) -> Matrix:
        return copies[place] if isinstance(place, int) else place

    layers = [
        layer._replace(**dict(zip(QUANTIZED, map(copy_of, own), strict=True)))
        for layer, own in zip(as_loaded.layers, places, strict=True)
    ]
    return DecodeWeights(layers, copy_of(head), sum(part.nbytes for part in parts))


def _layer_operands(layer: LayerWeights) -> LayerOperands:
    def operand(matrix: torch.Tensor | QuantizedMatrix) -> Matrix:
        return matrix.operand if isinstance(matrix, QuantizedMatrix) else matrix

    return LayerOperands(
        layer.attention_norm,
        operand(layer.qkv),
        operand(layer.output),
        layer.mlp_norm,
        operand(layer.gate_up),
        operand(layer.down),
        layer.qkv_bias,
        layer.output_bias,
        layer.query_norm,
        layer.key_norm,
    )
