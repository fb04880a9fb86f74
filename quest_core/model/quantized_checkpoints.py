"""Matrices of checkpoints that were quantised beforehand: AWQ and GPTQ in safetensors.

Both keep integers q, zero points z and scales s per group of input channels, w = s * (q - z), packed into int32: AWQ
("gemm") along the output channels in its own order, GPTQ along the input channels and its zero points along the
output channels, less one. Sources: arXiv 2306.00978 and 2210.17323, and the layouts their public checkpoints have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from quest_core.errors import ModelError
from quest_core.model.model_folder import read_json
from quest_core.model.quantization import GROUP_SIZES, QuantizedMatrix

# The output channel, of each eight, in a word's fields from the lowest.
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
PACKED_PARTS = ("qweight", "qzeros", "scales")
INPUT_GROUPS = "g_idx"


@dataclass(frozen=True)
class GroupedWeights:
    """A matrix as a checkpoint states it: weight = scale * value + minimum.

    Args:
        values: uint8 [out_channels, in_channels].
        scales: floating [out_channels, groups], as in the checkpoint.
        minimums: float32 [out_channels, groups], which holds the product of a scale and a zero point exactly.
    """

    values: torch.Tensor
    scales: torch.Tensor
    minimums: torch.Tensor

    @classmethod
    def stack(cls, parts: list[GroupedWeights]) -> GroupedWeights:
        """The rows of all parts, one after the other."""
        return cls(
            torch.cat([part.values for part in parts]),
            torch.cat([part.scales for part in parts]),
            torch.cat([part.minimums for part in parts]),
        )

    def to_matrix(self, bits: int) -> QuantizedMatrix:
        """The same weights in our layout.

        Raises:
            ModelError: if the groups cannot be cut into ours.
        """
        in_channels = self.values.shape[1]
        group = in_channels // self.scales.shape[1]
        size = max((size for size in GROUP_SIZES if group % size == 0), default=None)
        if size is None:
            raise ModelError(f"Groups of {group} input channels are not supported; multiples of 32 are.")
        scales, minimums = (each.repeat_interleave(group // size, dim=1) for each in (self.scales, self.minimums))
        if scales.device.type == "cpu":
            scales = scales.float()
        return QuantizedMatrix.from_groups(self.values, scales, minimums, bits, in_channels)

    def dequantize(self) -> torch.Tensor:
        """float32 [out_channels, in_channels]."""
        rows, groups = self.scales.shape
        grouped = self.values.view(rows, groups, -1) * self.scales.float().unsqueeze(2)
        return (grouped + self.minimums.unsqueeze(2)).view(rows, -1)


@dataclass(frozen=True)
class CheckpointPacking:
    """How a checkpoint's matrices are packed.

    Args:
        method: "awq" or "gptq".
        bits: of each weight, 4 or 8.
        zero_offset: what is added to a stored zero point.
    """

    method: str
    bits: int
    zero_offset: int

    @classmethod
    def read(cls, folder: Path) -> CheckpointPacking | None:
        """What config.json says; None if the matrices are not packed.

        Raises:
            ModelError: for another method, version or number of bits.
        """
        packing = read_json(folder / "config.json").get("quantization_config")
        if packing is None:
            return None
        if not isinstance(packing, dict):
            raise ModelError(f"The model in {folder} has a quantization_config that is no table of values.")
        method, bits = str(packing.get("quant_method")), packing.get("bits")
        version = packing.get("version", "gemm") if method == "awq" else packing.get("checkpoint_format", "gptq")
        known = {("awq", "gemm"): (4,), ("gptq", "gptq"): (4, 8), ("gptq", "gptq_v2"): (4, 8)}
        if bits not in known.get((method, str(version).lower()), ()):
            raise ModelError(
                f"The model in {folder} is quantised by {method!r} ({version}, {bits} bits). AWQ (gemm) in 4 bits and "
                "GPTQ in 4 or 8 bits are read."
            )
        return cls(method, bits, zero_offset=1 if version == "gptq" else 0)

    def tensors_of(self, weight: str, checkpoint: Mapping[str, object]) -> list[str]:
        """Names of the tensors that stand for the tensor `weight`; none if it is not packed."""
        names = [weight.removesuffix("weight") + part for part in PACKED_PARTS]
        if not all(name in checkpoint for name in names):
            return []
        input_groups = weight.removesuffix("weight") + INPUT_GROUPS
        return [*names, input_groups] if input_groups in checkpoint else names

    def unpack(self, tensors: Mapping[str, torch.Tensor]) -> GroupedWeights:
        """One matrix from its tensors, by the last part of their names; on their device.

        Raises:
            ModelError: if the shapes do not fit, or GPTQ has spread its groups over the input (desc_act).
        """
        scales = tensors["scales"]
        if any(tensors[part].dim() != 2 for part in PACKED_PARTS) or 0 in scales.shape:
            shapes = ", ".join(f"{part} {tuple(tensors[part].shape)}" for part in PACKED_PARTS)
            raise ModelError(f"Quantised tensors must be matrices: {shapes}.")
        if self.method == "awq":
            values = _unpack_columns(tensors["qweight"], self.bits, AWQ_ORDER)
            zeros = _unpack_columns(tensors["qzeros"], self.bits, AWQ_ORDER)
        else:
            values = _unpack_columns(tensors["qweight"].T, self.bits).T
            zeros = _unpack_columns(tensors["qzeros"], self.bits)
        groups, out_channels = scales.shape
        if zeros.shape != scales.shape or values.shape[1] != out_channels or len(values) % groups:
            raise ModelError(
                f"Quantised tensors do not fit each other: values {tuple(values.shape)}, zero points "
                f"{tuple(zeros.shape)}, scales {tuple(scales.shape)}."
            )
        self._check_order(tensors.get(INPUT_GROUPS), len(values), groups)
        # A zero point of 0 less one has wrapped round.
        zeros = ((zeros.int() + self.zero_offset) & (1 << self.bits) - 1).float()
        return GroupedWeights(values.T.contiguous(), scales.T.contiguous(), (-zeros * scales.float()).T.contiguous())

    def _check_order(self, input_groups: torch.Tensor | None, in_channels: int, groups: int) -> None:
        if input_groups is None:
            return
        in_order = torch.arange(in_channels, device=input_groups.device) // (in_channels // groups)
        if not torch.equal(input_groups.long(), in_order):
            raise ModelError(
                "This GPTQ checkpoint orders its input channels by activation (desc_act), which is not supported. "
                "Choose one without desc_act, or an AWQ one."
            )


def _unpack_columns(packed: torch.Tensor, bits: int, order: tuple[int, ...] | None = None) -> torch.Tensor:
    """int32 [rows, words] -> uint8 [rows, words * 32 / bits]; `order` names the column that each field holds."""
    shifts = torch.arange(0, 32, bits, device=packed.device)
    fields = (packed.unsqueeze(2) >> shifts & (1 << bits) - 1).to(torch.uint8)
    if order is not None:
        fields = fields[:, :, torch.tensor(order, device=packed.device).argsort()]
    return fields.reshape(len(packed), -1)
