"""Statistics of the inputs of linear layers over calibration speech."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from whisper.model import Linear, Whisper

from common.errors import CompressionError

Array = NDArray[np.float32]

ROWS_PER_CLIP = 16
"""Rows of each clip that are kept, evenly spread over it."""
EMBEDDING = "decoder.token_embedding"
"""The name of the logits' matrix."""
LOGITS_INPUT = "decoder.ln"
"""The name of what it multiplies."""
NO_CALIBRATION = "the recipe goes by activations: that needs calibration speech"
ENCODER_READER = "decoder.blocks.0.cross_attn.key"
"""The name of the encoder's output: of the first layer that reads it."""


def input_name(linear: str) -> str:
    """The name under which the input of a linear layer is kept: that of the first layer that reads it.

    `linear`: its name in the original network, such as `encoder.blocks.0.attn.value`. Query, key and value share
    their input; all keys and values of cross-attention read the encoder's output.
    """
    block, _, name = linear.rpartition(".")
    if name not in {"key", "value"}:
        return linear
    return ENCODER_READER if block.endswith("cross_attn") else f"{block}.query"


@dataclass(frozen=True, kw_only=True)
class InputStatistics:
    """Of an input (frames, K), all clips together.

    `mean` (K,), `covariance` (K, K); `low`, `high` (K,): the extremes of each column; `rows` (R, K): some of its rows.
    """

    mean: Array
    covariance: Array
    low: Array
    high: Array
    rows: Array

    @property
    def moment(self) -> Tensor:
        """E[x x^T], (K, K) float64."""
        mean = torch.from_numpy(self.mean).double()
        return torch.from_numpy(self.covariance).double() + torch.outer(mean, mean)

    @cached_property
    def digest(self) -> str:
        """Hexadecimal SHA-256 of what the moment is made of."""
        return hashlib.sha256(self.mean.tobytes() + self.covariance.tobytes()).hexdigest()

    def of_columns(self, columns: Tensor) -> "InputStatistics":
        """The same of some of the columns."""
        chosen = columns.cpu().numpy()
        return InputStatistics(
            mean=self.mean[chosen],
            covariance=self.covariance[np.ix_(chosen, chosen)],
            low=self.low[chosen],
            high=self.high[chosen],
            rows=self.rows[:, chosen],
        )

    def divided_by(self, divisors: Tensor) -> "InputStatistics":
        """The same of the input divided column by column by positive numbers (K,)."""
        factors = (1 / divisors).cpu().numpy()
        return InputStatistics(
            mean=self.mean * factors,
            covariance=self.covariance * np.outer(factors, factors),
            low=self.low * factors,
            high=self.high * factors,
            rows=self.rows * factors,
        )

    def times(self, weight: Tensor) -> "InputStatistics":
        """The same of the input multiplied by a matrix (M, K); its extremes are those of the rows that were kept."""
        matrix = weight.cpu().numpy()
        rows = self.rows @ matrix.T
        return InputStatistics(
            mean=matrix @ self.mean,
            covariance=matrix @ self.covariance @ matrix.T,
            low=rows.min(0),
            high=rows.max(0),
            rows=rows,
        )


class InputRecorder:
    """Accumulates, call by call, one input, where it is computed.

    Sums are of differences from the first call's mean: of columns that are far from 0 float32 would lose the variance,
    and float64 takes twice the memory, of which the moments of a large model need 8 GB.
    """

    def __init__(self) -> None:
        self._count = 0
        self._rows: list[Tensor] = []

    def add(self, values: Tensor) -> None:
        x = values.detach().flatten(0, -2)
        if not self._count:
            self._begin(x)
        apart = x - self._shift
        self._count += len(x)
        self._total += apart.sum(0)
        self._gram.addmm_(apart.T, apart)
        self._low: Tensor = torch.minimum(self._low, x.amin(0))
        self._high: Tensor = torch.maximum(self._high, x.amax(0))
        chosen = torch.linspace(0, len(x) - 1, min(ROWS_PER_CLIP, len(x))).round().long()
        self._rows.append(x[chosen].cpu().clone())

    def _begin(self, x: Tensor) -> None:
        self._shift = x.mean(0)
        self._total = torch.zeros_like(self._shift)
        self._gram = self._shift.new_zeros(x.shape[1], x.shape[1])
        self._low, self._high = x.amin(0), x.amax(0)

    def statistics(self) -> InputStatistics:
        """Of all that was added, once at most: the sums become the result."""
        if not self._count:
            raise CompressionError("calibration: a layer took no part")
        apart = self._total / self._count
        covariance = self._gram.div_(self._count).addr_(apart, apart, alpha=-1)
        return InputStatistics(
            mean=(self._shift + apart).cpu().numpy(),
            covariance=covariance.cpu().numpy(),
            low=self._low.cpu().numpy(),
            high=self._high.cpu().numpy(),
            rows=torch.cat(self._rows).numpy(),
        )


@contextmanager
def recording_inputs(network: Whisper) -> Iterator[dict[str, InputRecorder]]:
    """Recorders by input name, which record while the network runs: one call is one clip."""
    recorders: dict[str, InputRecorder] = {}
    with ExitStack() as hooks:
        for name, module in network.named_modules():
            if isinstance(module, Linear) and input_name(name) == name:
                recorder = recorders[name] = InputRecorder()
                hooks.callback(module.register_forward_pre_hook(_reading(recorder)).remove)
        recorder = recorders[LOGITS_INPUT] = InputRecorder()
        hooks.callback(network.decoder.ln.register_forward_hook(_writing(recorder)).remove)
        yield recorders


def _reading(recorder: InputRecorder) -> Callable[[nn.Module, tuple[Tensor]], None]:
    def hook(_: nn.Module, inputs: tuple[Tensor]) -> None:
        recorder.add(inputs[0])

    return hook


def _writing(recorder: InputRecorder) -> Callable[[nn.Module, tuple[Tensor], Tensor], None]:
    def hook(_: nn.Module, __: tuple[Tensor], output: Tensor) -> None:
        recorder.add(output)

    return hook


def _digest(values: Tensor) -> str:
    return hashlib.sha256(values.cpu().contiguous().numpy().data).hexdigest()


class KeptInputs:
    """What the linear layers of a compressed network read, by their names in it."""

    def __init__(
        self,
        inputs: Mapping[str, InputStatistics],
        *,
        kept_layers: Mapping[str, Sequence[int]],
        columns: Mapping[str, Tensor],
    ) -> None:
        """`inputs`: of the original network. `kept_layers`: by stack, the original numbers of the layers that stayed.
        `columns`: by a linear layer's original name, the input columns that stayed, where some left.
        """
        self._inputs = inputs
        self._kept_layers = kept_layers
        self._columns = columns
        self._first_factors: dict[str, Tensor] = {}
        self._divisors: dict[str, Tensor] = {}

    def of(self, linear: str) -> InputStatistics:
        """Of a linear layer, or of `LOGITS_INPUT`. Raises CompressionError when there is no calibration."""
        if not self._inputs:
            raise CompressionError(NO_CALIBRATION)
        found = self._undivided(linear)
        return found.divided_by(self._divisors[linear]) if linear in self._divisors else found

    def _undivided(self, linear: str) -> InputStatistics:
        whole, _, place = linear.rpartition(".")
        if whole in self._first_factors:
            found = self._undivided(whole)
            return found.times(self._first_factors[whole]) if place == "1" else found
        original = self.original_name(linear)
        found = self._inputs[input_name(original)]
        return found.of_columns(self._columns[original]) if original in self._columns else found

    def digest(self, linear: str) -> str:
        """What tells the moment of an input from others, without making it. Raises as `of`."""
        if not self._inputs:
            raise CompressionError(NO_CALIBRATION)
        divisors = self._divisors.get(linear)
        return self._undivided_digest(linear) + (f" / {_digest(divisors)}" if divisors is not None else "")

    def _undivided_digest(self, linear: str) -> str:
        whole, _, place = linear.rpartition(".")
        if whole in self._first_factors:
            times = f" x {_digest(self._first_factors[whole])}" if place == "1" else ""
            return self._undivided_digest(whole) + times
        original = self.original_name(linear)
        columns = self._columns.get(original)
        return self._inputs[input_name(original)].digest + (f"[{_digest(columns)}]" if columns is not None else "")

    def is_original(self, linear: str) -> bool:
        """Whether a layer is one of the original network that reads there what it reads here.

        Its rows are then the original's unless it was trained: what changes a layer's weights changes its input.
        """
        is_factor = linear.rpartition(".")[0] in self._first_factors
        return not is_factor and linear not in self._divisors and self.original_name(linear) not in self._columns

    def divide(self, linear: str, divisors: Tensor) -> None:
        """From now on the layer's input is divided by these, column by column."""
        self._divisors[linear] = divisors

    def divisors(self, linear: str) -> Tensor | None:
        """What the layer's input is divided by, (K,), if it is."""
        return self._divisors.get(linear)

    def factorise(self, linear: str, first: Tensor) -> None:
        """From now on the layer is two, `.0` with this weight (rank, K) and `.1`, which reads what that gives."""
        self._first_factors[linear] = first.detach().clone()

    def original_name(self, linear: str) -> str:
        """A linear layer's name in the original network."""
        stack, _, rest = linear.partition(".blocks.")
        layer, dot, within = rest.partition(".")
        return f"{stack}.blocks.{self._kept_layers[stack][int(layer)]}.{within}" if dot else linear
