"""What calibration speech tells about a model, measured once per model and reused for every recipe.

For each site (the heads or the FFN channels of a layer): how important each unit is by several measures. For each
layer: what skipping it costs. For the input of each linear layer: its statistics (`compression.calibration.inputs`), by
which removed units are made up for, weights rounded and activations given a range, and how much the loss depends on
its output. For each token: how often it was said.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from whisper.model import AudioEncoder, Linear, TextDecoder, Whisper

from common.errors import CompressionError
from common.files import whole_file
from compression.calibration.covariance_file import load_flat, save_flat
from compression.calibration.gradients import recording_gradients
from compression.calibration.inputs import Array, InputStatistics, recording_inputs
from compression.calibration.removal_order import departure_scores
from compression.recipe.recipe import IMPORTANCE_MEASURES, ImportanceMeasure
from compression.whisper.compute import exact
from compression.whisper.load import LoadedModel
from compression.whisper.network import encode, encoder_states
from compression.whisper.sites import Site, output_projection, sites, unit_count

LAYER_SAMPLES = 8
"""The first clips, on which each layer is skipped in turn."""
GRADIENT_SAMPLES = 32
"""The first clips, on which the loss runs backward, which takes 2.6 times the time of the inputs' statistics alone."""

DRAWING_SEED = 0
_SMALL = ("mean", "low", "high", "rows")
"""Of `InputStatistics`, all but the covariance."""


@dataclass(frozen=True, kw_only=True)
class CalibrationSample:
    """One clip: `mel` (n_mels, frames), `tokens` (T,) int64 with the prompt, whose length is `prompt_length`."""

    mel: Tensor
    tokens: Tensor
    prompt_length: int


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """`inputs` of linear layers by `input_name`; `importances` of units (units,) by site key (see `Site.key`).

    `gradient_squares`: by linear layer, and the embedding for the logits, squares (N,) of the gradient g at its output,
    summed over all rows, by the tokens that are predicted; of a loss whose tokens the model draws by itself.
    `layer_importance`: by stack and layer (`encoder.0`), how much the calibration loss rises when the network skips it.
    `token_counts`: (n_vocab,) int64, how often each token is in the transcripts.
    """

    inputs: dict[str, InputStatistics]
    importances: dict[str, dict[ImportanceMeasure, Array]]
    gradient_squares: dict[str, Array]
    layer_importance: dict[str, float]
    token_counts: NDArray[np.int64]

    def importance(self, measure: ImportanceMeasure) -> dict[str, Array]:
        """Importance of each unit (units,) by site key."""
        return {key: measures[measure] for key, measures in self.importances.items()}

    def save(self, path: Path) -> None:
        """Write a .npz file, and before it one of covariances beside it. Raises OSError."""
        covariances = [statistics.covariance for statistics in self.inputs.values()]
        arrays: dict[str, Any] = {"token_counts": self.token_counts, "checksum": save_flat(path, covariances)}
        for name, statistics in self.inputs.items():
            arrays |= {f"{part}/{name}": getattr(statistics, part) for part in _SMALL}
        arrays |= {f"gradient_squares/{name}": squares for name, squares in self.gradient_squares.items()}
        for key, measures in self.importances.items():
            for measure, scores in measures.items():
                arrays[f"importance/{measure}/{key}"] = scores
        for key, rise in self.layer_importance.items():
            arrays[f"layer/{key}"] = rise
        with whole_file(path) as handle:
            np.savez(handle, **arrays)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Raises an error of numpy's, zipfile's, a ValueError or a KeyError when the file is no saved calibration.

        Covariances are read when they are used.
        """
        with path.open("rb") as handle, np.load(handle) as archive:
            arrays = {name: archive[name] for name in archive.files}
        covariances = load_flat(path, int(arrays["checksum"]))

        def keys(prefix: str) -> list[str]:
            return [name.removeprefix(prefix) for name in arrays if name.startswith(prefix)]

        def statistics(name: str) -> InputStatistics:
            small = {part: arrays[f"{part}/{name}"] for part in _SMALL}
            return InputStatistics(**small, covariance=covariances.square(len(small["mean"])))

        return cls(
            inputs={name: statistics(name) for name in keys("mean/")},
            importances={
                key: {measure: arrays[f"importance/{measure}/{key}"] for measure in IMPORTANCE_MEASURES}
                for key in keys(f"importance/{IMPORTANCE_MEASURES[0]}/")
            },
            gradient_squares={key: arrays[f"gradient_squares/{key}"] for key in keys("gradient_squares/")},
            layer_importance={key: float(arrays[f"layer/{key}"]) for key in keys("layer/")},
            token_counts=arrays["token_counts"],
        )


class _HeadRecorder:
    """Accumulates, clip by clip, how much the loss depends on the heads in front of one output projection."""

    def __init__(self, network: Whisper, site: Site) -> None:
        self.site = site
        self.projection = output_projection(network, site)
        self.slopes = torch.zeros(unit_count(network, site), dtype=torch.float64)
        self._input: Tensor | None = None

    def remember(self, _: Linear, inputs: tuple[Tensor]) -> None:
        """Forward pre-hook: keep the input until its gradient is known."""
        self._input = inputs[0]
        self._input.retain_grad()

    def collect(self) -> None:
        """Add the remembered input; call after the backward pass."""
        if self._input is None or self._input.grad is None:
            raise CompressionError("calibration: a layer took no part in the loss")
        # Michel et al. 2019, "Are sixteen heads really better than one?", eq. 3: |dL/d(mask)| per sample.
        product = (self._input.detach() * self._input.grad).flatten(0, 1).unflatten(1, (len(self.slopes), -1))
        self.slopes += product.sum((0, 2)).abs().cpu().double()
        self._input = None


def _importances(
    network: Whisper, site: Site, inputs: InputStatistics, slopes: Tensor | None
) -> dict[ImportanceMeasure, Array]:
    """Of each unit of a site, see `measure`. `inputs`: of its projection. `slopes`: of heads, by `_HeadRecorder`."""
    weight = exact(output_projection(network, site).weight.detach())
    covariance = torch.from_numpy(inputs.covariance).to(weight)
    variances = weight.square().sum(0) * covariance.diagonal()  # of channels, a column each
    found: dict[ImportanceMeasure, Tensor] = {
        "combined": variances.clamp(min=0).sqrt() if slopes is None else slopes,
        "iterative": departure_scores(weight, covariance, units=unit_count(network, site)),
    }
    return {measure: scores.float().cpu().numpy() for measure, scores in found.items()}


@contextmanager
def _only_activation_gradients(network: Whisper) -> Iterator[None]:
    """Gradients reach every activation of the decoder and none of the weights, which saves a third of the time.

    The encoder's activations get theirs through the mel spectrogram (see `measure`).
    """
    before = [(parameter, parameter.requires_grad) for parameter in network.parameters()]
    network.requires_grad_(False)
    network.decoder.positional_embedding.requires_grad_(True)
    try:
        yield
    finally:
        for parameter, requires_grad in before:
            parameter.requires_grad_(requires_grad)
        network.zero_grad(set_to_none=True)


def calibration_loss(network: Whisper, sample: CalibrationSample) -> Tensor:
    """Mean cross-entropy of the sample's tokens behind the prompt, teacher forced; a scalar."""
    return _loss(predicted(network, sample), sample)


def _said(sample: CalibrationSample) -> Tensor:
    return sample.tokens[sample.prompt_length :]


def predicted(network: Whisper, sample: CalibrationSample) -> Tensor:
    """Logits (R, vocabulary) of the sample's tokens behind the prompt, teacher forced."""
    return _behind_prompt(network.decoder, sample, encode(network, sample.mel.unsqueeze(0)))


def _behind_prompt(decoder: TextDecoder, sample: CalibrationSample, encoded: Tensor) -> Tensor:
    """`predicted`, by the encoder's output."""
    return decoder(sample.tokens[None, :-1].to(encoded.device), encoded)[0, sample.prompt_length - 1 :]


def _loss(logits: Tensor, sample: CalibrationSample) -> Tensor:
    return functional.cross_entropy(logits, _said(sample).to(logits.device))


def _drawn(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Tokens (R,) that the model draws by itself, by logits (R, vocabulary).

    Of a loss of such tokens E[g g^T] is Fisher's matrix, the curvature of the divergence from the model as it is
    (Martens 2020, "New insights and perspectives on the natural gradient method"); with its best guesses, which seldom
    surprise it, it would be far smaller.
    """
    return torch.multinomial(logits.softmax(-1).cpu(), 1, generator=generator).squeeze(1).to(logits.device)


def _with_gradient(sample: CalibrationSample) -> CalibrationSample:
    return replace(sample, mel=sample.mel.clone().requires_grad_())


def measure(model: LoadedModel, samples: Sequence[CalibrationSample]) -> Calibration:
    """Run the samples through the original model, the first of them backward too (see GRADIENT_SAMPLES).

    Importance of a unit: `combined` is, of a head, the first-order change of the loss when it is removed (Michel et al.
    2019), of a channel the standard deviation of its contribution to the residual stream; `iterative` what its
    departure adds to the squared error in the residual stream when units leave one by one and the others are refitted
    after each (`compression.calibration.removal_order`). benchmarks/wer/pruning.py compares them. Raises
    CompressionError when there is no sample.
    """
    if not samples:
        raise CompressionError("calibration: no speech to calibrate on")
    network, first = model.network, samples[:GRADIENT_SAMPLES]
    recorders = [_HeadRecorder(network, site) for site in sites(network) if site.units != "ffn_channels"]
    with recording_inputs(network) as inputs:
        squares = _backward(network, first, recorders)
        with torch.inference_mode():
            for sample in samples[GRADIENT_SAMPLES:]:
                predicted(network, sample)
    statistics = {name: recorder.statistics() for name, recorder in inputs.items()}
    slopes = {recorder.site: recorder.slopes / len(first) for recorder in recorders}
    importances = {
        site.key: _importances(network, site, statistics[site.projection], slopes.get(site)) for site in sites(network)
    }
    said = torch.cat([_said(sample) for sample in samples])
    return Calibration(
        inputs=statistics,
        importances=importances,
        gradient_squares=squares,
        layer_importance=_layer_importance(network, samples[:LAYER_SAMPLES]),
        token_counts=said.bincount(minlength=model.dimensions.n_vocab).numpy(),
    )


def _backward(
    network: Whisper, samples: Sequence[CalibrationSample], recorders: Sequence[_HeadRecorder]
) -> dict[str, Array]:
    """Run the samples once forward and twice backward: the recorders' slopes, and `Calibration.gradient_squares`."""
    generator, tokens = torch.Generator().manual_seed(DRAWING_SEED), 0
    with ExitStack() as hooks, torch.enable_grad(), _only_activation_gradients(network):
        gradients = hooks.enter_context(recording_gradients(network))
        for recorder in recorders:
            hooks.callback(recorder.projection.register_forward_pre_hook(recorder.remember).remove)
        for sample in samples:
            logits = predicted(network, _with_gradient(sample))
            _loss(logits, sample).backward(retain_graph=True)
            for recorder in recorders:
                recorder.collect()
            for gradient in gradients.values():
                gradient.listen()
            functional.cross_entropy(logits, _drawn(logits.detach(), generator), reduction="sum").backward()
            tokens += len(_said(sample))
    return {name: recorder.squares(tokens) for name, recorder in gradients.items()}


def _layer_importance(network: Whisper, samples: Sequence[CalibrationSample]) -> dict[str, float]:
    """By how much the mean loss rises when the network skips a layer, by stack and layer: `encoder.0`."""
    with torch.no_grad():
        rises = [dict(_rises(network, sample)) for sample in samples]
    return {name: fmean(of[name] for of in rises) for name in rises[0]}


def _rises(network: Whisper, sample: CalibrationSample) -> Iterator[tuple[str, float]]:
    """Of one clip, layer by layer. What a layer does not change runs once."""
    encoder, decoder = network.encoder, network.decoder
    *states, features = encoder_states(network, sample.mel.unsqueeze(0))

    def loss(heard: Tensor) -> float:
        return float(_loss(_behind_prompt(decoder, sample, heard), sample))

    whole = loss(features)
    for index in range(len(encoder.blocks)):
        with _skipping(encoder, index):
            later = encoder.ln_post(nn.Sequential(*encoder.blocks[index:])(states[index - 1])) if index else None
            yield f"encoder.{index}", loss(encode(network, sample.mel.unsqueeze(0)) if later is None else later) - whole
    for index in range(len(decoder.blocks)):
        with _skipping(decoder, index):
            yield f"decoder.{index}", loss(features) - whole


@contextmanager
def _skipping(part: AudioEncoder | TextDecoder, index: int) -> Iterator[None]:
    """The same without one of its blocks."""
    blocks = part.blocks
    part.blocks = nn.ModuleList(block for other, block in enumerate(blocks) if other != index)
    try:
        yield
    finally:
        part.blocks = blocks
