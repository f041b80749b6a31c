"""How fast this machine computes with a model: each kind of work timed, in a few seconds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TypeVar

import torch
from torch import Tensor
from whisper.model import Linear

from compression.calibration.removal_order import departure_scores
from compression.recipe.dimensions import Dimensions
from compression.techniques.compressed import Compressed
from compression.techniques.grids import Grid, quantise
from compression.techniques.rounding import quantise_calibrated
from compression.whisper.compute import exact
from compression.whisper.load import LoadedModel
from compression.whisper.network import decoder_states, encode
from evaluators.accuracy.decoding import Clip, decode

FRAMES = 1500
"""Of a clip of 11 s with its margin."""
TOKENS = 30
"""Of a clip's transcript."""
GRID = Grid(bits=4, group_size=32)
MOST_COLUMNS = 2048
"""Of matrices that are timed; wider ones are calculated from them."""
DEPARTING = 1536
"""The same where channels leave, which takes longer."""
PASSES = 3.0
"""Over all weights, where a matrix that was rounded before is read, checked and written as float32."""
Shape = tuple[int, int]
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True, slots=True)
class Speeds:
    """Seconds. `encode`: a clip in a window of 15 s. `predict`: its tokens at once; `token`: one of them, decoded.

    `gather`: the covariances of a clip's inputs. `rounding`: every matrix on one grid; `departures`: the order in which
    channels leave, of all layers; `compress`: a recipe whose matrices were rounded before.
    """

    encode: float
    predict: float
    token: float
    gather: float
    rounding: float
    departures: float
    compress: float


def measure_speeds(model: LoadedModel) -> Speeds:
    """With noise for speech, which takes as long."""
    generator = torch.Generator().manual_seed(0)
    network, dimensions = model.network, model.dimensions
    shapes = [(layer.out_features, layer.in_features) for layer in network.modules() if isinstance(layer, Linear)]
    shapes.append((dimensions.n_vocab, dimensions.n_text_state))
    mel = torch.randn(1, dimensions.n_mels, FRAMES, generator=generator)
    with torch.inference_mode():
        encoding, encoded = _timed(lambda: encode(network, mel))
        tokens = torch.randint(0, 1000, (1, TOKENS), generator=generator)
        predicting, _ = _timed(
            lambda: decoder_states(network, tokens, encoded)[-1] @ network.decoder.token_embedding.weight.T
        )
        decoding, said = _timed(lambda: _decoded(model, encoded[0]))
    return Speeds(
        encode=encoding,
        predict=predicting,
        token=decoding / said,
        gather=_gathering_s(model),
        rounding=_rounding_s(shapes, model.compute),
        departures=_departures_s(dimensions, model.compute),
        compress=_compressing_s(shapes, model.compute),
    )


def _timed(work: Callable[[], Result]) -> tuple[float, Result]:
    """The shorter of two runs: the first one loads and compiles, and either may have been disturbed."""
    seconds = []
    for _ in range(2):
        started = perf_counter()
        found = work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(perf_counter() - started)
    return min(seconds), found


def _decoded(model: LoadedModel, encoded: Tensor) -> int:
    """So many tokens; noise may end, or go round in circles, early."""
    clip = Clip(features=encoded, language="en", max_tokens=TOKENS)
    (hypothesis,) = decode(Compressed.original(model.network), [clip])
    return max(len(hypothesis.tokens), 1)


def _columns(shapes: Sequence[Shape]) -> int:
    return min(MOST_COLUMNS, max(columns for _, columns in shapes))


def _gathering_s(model: LoadedModel) -> float:
    """By one product of a clip's rows; each layer has inputs of 19 (encoder) and 21 (decoder) widths squared."""
    dimensions, positions = model.dimensions, FRAMES // 2
    columns = min(MOST_COLUMNS, dimensions.audio_ffn)
    rows = torch.randn(positions, columns, device=model.compute)
    seconds, _ = _timed(lambda: rows.new_zeros(columns, columns).addmm_(rows.T, rows))
    audio, text = dimensions.n_audio_layer * 19 * positions, dimensions.n_text_layer * 21 * TOKENS
    return seconds * (audio + text) * dimensions.n_audio_state**2 / (positions * columns**2)


def _rounding_s(shapes: Sequence[Shape], device: torch.device) -> float:
    """By one matrix: rows times columns squared, and for the factor of a moment columns cubed."""

    def work(rows: int, columns: int) -> int:
        return (rows + columns) * columns**2

    columns = _columns(shapes)
    weight, inputs = torch.randn(columns // 4, columns, device=device), torch.randn(columns, columns)
    moment = (inputs @ inputs.T).double()
    seconds, _ = _timed(lambda: quantise_calibrated(weight, GRID, moment))
    return seconds * sum(work(*shape) for shape in shapes) / work(columns // 4, columns)


def _departures_s(dimensions: Dimensions, device: torch.device) -> float:
    """By a smaller layer: columns cubed."""
    columns = min(DEPARTING, dimensions.audio_ffn)
    weight, inputs = torch.randn(columns // 4, columns, device=device), torch.randn(2 * columns, columns, device=device)
    covariance = exact(inputs.T @ inputs)
    seconds, _ = _timed(lambda: departure_scores(exact(weight), covariance, units=columns))
    layers = dimensions.n_audio_layer + dimensions.n_text_layer
    return seconds * layers * (dimensions.audio_ffn / columns) ** 3


def _compressing_s(shapes: Sequence[Shape], device: torch.device) -> float:
    """By one matrix whose codes become weights again."""
    columns = _columns(shapes)
    matrix = quantise(torch.randn(columns, columns, device=device), GRID)
    seconds, _ = _timed(matrix.dequantised)
    return PASSES * seconds * sum(rows * columns for rows, columns in shapes) / columns**2
