"""Bytes of one stored tensor: the rules that the quantiser and the exported artifact follow."""

from dataclasses import dataclass
from math import ceil

FLOAT16_BYTES = 2
"""Scales, and weights at 16 bits."""
LOADED_FLOAT_BYTES = 4
"""Floating-point values are float32 in memory: stored float16 is widened when the artifact is loaded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorBytes:
    """`packed_bytes`: integer codes and zero points. `float_values`, of `float_bytes` bytes in all: the rest.

    `parameters`: weights that the tensor stands for.
    """

    parameters: int
    packed_bytes: int
    float_values: int
    float_bytes: int

    @property
    def stored(self) -> int:
        """Bytes in the artifact."""
        return self.packed_bytes + self.float_bytes

    @property
    def loaded(self) -> int:
        """Bytes in memory: integers stay packed, floating point is float32."""
        return self.packed_bytes + self.float_values * LOADED_FLOAT_BYTES

    @property
    def loading(self) -> int:
        """Bytes of a second copy in memory until its graph is loaded: stored float16, widened and then rearranged."""
        is_float16 = self.packed_bytes == 0 and self.float_bytes == FLOAT16_BYTES * self.float_values
        return self.float_values * LOADED_FLOAT_BYTES if is_float16 else 0


def tensor_bytes(  # noqa: PLR0913 - one grid
    outputs: int, inputs: int, bits: int, *, group_size: int = 0, symmetric: bool = True, scale_bits: int = 16
) -> TensorBytes:
    """A matrix of N = `outputs` rows and K = `inputs` columns at `bits` bits per weight.

    At 2 to 8 bits, rows are cut into G = ceil(K / g) groups of g (g = K for `group_size` 0), the last one
    padded: N ceil(G g bits / 8) bytes of codes, N G float16 scales and, unless symmetric, N ceil(G bits / 8)
    bytes of zero points. Of several scales of 8 bits, each has one byte, and the row a float16 scale of its own. 16
    and 32 bits are plain floating point.
    """
    if bits > 8:
        values, float_bytes, packed_bytes = outputs * inputs, outputs * inputs * bits // 8, 0
    else:
        group = group_size or inputs
        groups = ceil(inputs / group)
        codes = ceil(groups * group * bits / 8)
        zero_points = 0 if symmetric else ceil(groups * bits / 8)
        scales = groups + FLOAT16_BYTES if scale_bits == 8 and groups > 1 else groups * FLOAT16_BYTES
        values, float_bytes, packed_bytes = outputs * groups, outputs * scales, outputs * (codes + zero_points)
    return TensorBytes(
        parameters=outputs * inputs, packed_bytes=packed_bytes, float_values=values, float_bytes=float_bytes
    )


def computed(values: int) -> TensorBytes:
    """Floating point that is made when the artifact is loaded: neither stored nor a parameter."""
    return TensorBytes(parameters=0, packed_bytes=0, float_values=values, float_bytes=0)
