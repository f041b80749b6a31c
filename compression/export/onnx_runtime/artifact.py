"""An artifact directory for ONNX Runtime: what `runtime` needs, without the original model; see docs/artifacts.md."""

from pathlib import Path

from compression.export.configuration import write_configuration
from compression.export.onnx_runtime.decoder import decoder_graph
from compression.export.onnx_runtime.encoder import encoder_graph
from compression.recipe.recipe import Recipe
from compression.techniques.compressed import Compressed
from compression.whisper.load import LoadedModel


def export(model: LoadedModel, recipe: Recipe, compressed: Compressed, out: Path) -> None:
    """Write encoder, decoder, vocabulary and configuration of `compress(model, recipe, ...)` into the folder `out`."""
    encoder_graph(compressed, recipe).write(out / "encoder.onnx")
    decoder_graph(compressed, recipe).write(out / "decoder.onnx")
    write_configuration(model, recipe, compressed, out)
