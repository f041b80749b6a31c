"""Random clips, and recipes of the small network."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from compression.calibration.calibration import CalibrationSample
from compression.recipe.recipe import Recipe
from compression.training.batches import Batch, Clip, batch_of
from compression.training.subject import Subject
from compression.whisper.load import LoadedModel

FRAMES = 40


class RandomBatches:
    """Eight clips of noise with random transcripts, two of them held out; batches of three, reordered each epoch."""

    def __init__(self, vocabulary: int = 300, n_mels: int = 80) -> None:
        generator = torch.Generator().manual_seed(1)
        self.clips = [
            Clip(
                key=str(index),
                mel=torch.randn(n_mels, FRAMES, generator=generator),
                tokens=torch.randint(1, vocabulary, (4 + index,), generator=generator),
                prompt_length=2,
            )
            for index in range(8)
        ]

    def plan(self, epoch: int) -> Sequence[tuple[int, ...]]:
        order = torch.randperm(6, generator=torch.Generator().manual_seed(epoch)).tolist()
        return [tuple(order[:3]), tuple(order[3:])]

    def load(self, epoch: int, indices: tuple[int, ...]) -> Batch:
        return batch_of([self.clips[index] for index in indices])

    def held_out(self) -> Sequence[Batch]:
        return [batch_of(self.clips[6:])]


SAMPLES = [
    CalibrationSample(mel=clip.mel, tokens=clip.tokens, prompt_length=clip.prompt_length)
    for clip in RandomBatches().clips
]
"""The clips as calibration speech."""


def subject(model: LoadedModel, **changes: object) -> Subject:
    """The small network compressed by its original recipe with these fields changed."""
    recipe = replace(Recipe.original(model.dimensions), **changes)  # type: ignore[arg-type]
    return Subject(model=model, recipe=recipe, calibration=None, recovered=None)


def bits(model: LoadedModel, bits: int, **changes: object) -> Subject:
    """Every weight at so many bits."""
    original = Recipe.original(model.dimensions)
    values = {"attention_bits": bits, "ffn_bits": bits}
    return subject(
        model,
        encoder=tuple(layer and replace(layer, **values) for layer in original.encoder),
        decoder=tuple(layer and replace(layer, **values) for layer in original.decoder),
        embedding_bits=bits,
        convolution_bits=bits,
        **changes,
    )
