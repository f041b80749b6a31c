"""How much the loss depends on the outputs of linear layers over calibration speech."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from whisper.model import Linear, Whisper

from compression.calibration.inputs import EMBEDDING, Array


class GradientRecorder:
    """Accumulates, clip by clip, the squares of a loss's gradient at one output."""

    def __init__(self) -> None:
        self._total = torch.zeros((), dtype=torch.float64)
        self._output: Tensor | None = None

    def remember(self, _: nn.Module, __: tuple[Tensor], output: Tensor) -> None:
        """Forward hook."""
        self._output = output

    def listen(self) -> None:
        """From now on losses that run backward count, as long as the network does not run again."""
        if self._output is not None:
            self._output.register_hook(self._add)
        self._output = None

    def _add(self, gradient: Tensor) -> None:
        """(..., N)."""
        self._total = self._total + gradient.flatten(0, -2).square().sum(0)

    def squares(self, count: int) -> Array:
        """Their sum (N,) over so many."""
        return (self._total / count).float().cpu().numpy()


@contextmanager
def recording_gradients(network: Whisper) -> Iterator[dict[str, GradientRecorder]]:
    """Recorders by linear layer, that of the logits by the embedding's name, which remember what the network does."""
    recorders: dict[str, GradientRecorder] = {}
    outputs = [(name, module) for name, module in network.named_modules() if isinstance(module, Linear)]
    with ExitStack() as hooks:
        for name, module in (*outputs, (EMBEDDING, network.decoder)):
            recorder = recorders[name] = GradientRecorder()
            hooks.callback(module.register_forward_hook(recorder.remember).remove)
        yield recorders
