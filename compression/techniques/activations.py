"""Linear layers whose input is rounded to 8 or 16 bits, as an integer runtime would see it."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional
from whisper.model import Linear

from compression.techniques.straight_through import straight_through

RangeOver = Literal["clip", "token"]


def fake_quantise(values: Tensor, low: Tensor, high: Tensor, bits: int) -> Tensor:
    """Round to an unsigned asymmetric grid over [low, high], which must contain 0.

    The formula is ONNX's DynamicQuantizeLinear: s = (high - low) / (2^b - 1), z = round(-low / s).
    """
    levels = 2**bits - 1
    scale = ((high - low) / levels).clamp(min=torch.finfo(values.dtype).tiny)
    zero_point = (-low / scale).round()
    codes = ((values / scale).round() + zero_point).clamp(0, levels)
    return (codes - zero_point) * scale


class RoundingLinear(Linear):
    """A linear layer that rounds its input first; gradients pass the rounding as if it were not there."""

    def __init__(self, linear: Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
        self.weight, self.bias = linear.weight, linear.bias

    def rounded(self, x: Tensor) -> Tensor:
        """The values that the weights are multiplied by; without gradient."""
        raise NotImplementedError

    def within_range(self, x: Tensor) -> Tensor:
        """The input as far as its gradient counts."""
        return x

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(straight_through(self.within_range(x), self.rounded(x.detach())))


class DynamicLinear(RoundingLinear):
    """Quantises its input over its own range: of the whole clip in the encoder, of one token in the decoder.

    Both are what a runtime sees that runs one clip and one decoding step at a time.
    """

    def __init__(self, linear: Linear, *, bits: int, range_over: RangeOver) -> None:
        super().__init__(linear)
        self.bits = bits
        self.range_dimensions = (-2, -1) if range_over == "clip" else (-1,)

    def rounded(self, x: Tensor) -> Tensor:
        low = x.amin(self.range_dimensions, keepdim=True).clamp(max=0)
        high = x.amax(self.range_dimensions, keepdim=True).clamp(min=0)
        return fake_quantise(x, low, high, self.bits)


class BlockLinear(RoundingLinear):
    """Rounds its input to int8 in blocks along its columns, as ONNX Runtime's MatMulNBits does at accuracy level 4.

    Each block of each row has the scale max |x| / 127; blocks are as long as the groups of the weights.
    """

    def __init__(self, linear: Linear, *, block: int) -> None:
        super().__init__(linear)
        self.block = block

    def rounded(self, x: Tensor) -> Tensor:
        columns = x.shape[-1]
        blocks = functional.pad(x, (0, -columns % self.block)).unflatten(-1, (-1, self.block))
        scales = (blocks.abs().amax(-1, keepdim=True) / 127).clamp(min=torch.finfo(x.dtype).tiny)
        rounded = (blocks / scales).round() * scales
        return rounded.flatten(-2)[..., :columns]


class StaticLinear(RoundingLinear):
    """Quantises its input over a range that was calibrated on speech; values beyond it are clipped."""

    low: Tensor
    high: Tensor

    def __init__(self, linear: Linear, *, bits: int, low: float, high: float) -> None:
        super().__init__(linear)
        self.bits = bits
        self.register_buffer("low", linear.weight.new_tensor(min(low, 0.0)))
        self.register_buffer("high", linear.weight.new_tensor(max(high, 0.0)))

    def rounded(self, x: Tensor) -> Tensor:
        return fake_quantise(x, self.low, self.high, self.bits)

    def within_range(self, x: Tensor) -> Tensor:
        return x.clamp(self.low, self.high)  # what is clipped gets no gradient
