"""A compressed Whisper as something that is trained, and the original as its teacher."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from whisper.model import Whisper

from compression.calibration.inputs import EMBEDDING, ENCODER_READER
from compression.recipe.recipe import Recipe
from compression.recipe.recovery_spec import STACKS, RecoveryMethod
from compression.techniques.activations import RoundingLinear
from compression.techniques.compressed import Vocabulary
from compression.training.batches import Batch
from compression.training.clip_cache import ClipCache
from compression.training.qat import round_while_training, scale_while_training, trained_weights
from compression.training.settings import Part, TrainingSettings
from compression.training.subject import Subject
from compression.whisper.network import decoder_states, encode, encoder_states

Parts = Literal["encoder", "decoder", "both"]


@dataclass(frozen=True, kw_only=True)
class StudentOutput:
    """What a network makes of a batch, as far as it was asked to.

    `encoded` (B, positions, width): the encoder's output as it is without smoothing, None where it is not trained.
    `logits` (R, vocabulary) by the original's ids: of the tokens to predict, -inf for what the network cannot say, None
    where the decoder is not trained. `encoder_states`, `decoder_states`: what leaves each block, (B, positions, width)
    and (R, width).
    """

    encoded: Tensor | None = None
    logits: Tensor | None = None
    encoder_states: tuple[Tensor, ...] = ()
    decoder_states: tuple[Tensor, ...] = ()


def changed_part(recipe: Recipe, original: Recipe, part: Part) -> Parts:
    """What is to be trained: as asked, or for `auto` what the recipe compresses; the decoder where it is nothing."""
    if part != "auto":
        return part
    encoder = recipe.encoder != original.encoder or recipe.convolution_bits != original.convolution_bits
    decoder = recipe.decoder != original.decoder or recipe.vocabulary != original.vocabulary
    decoder = decoder or recipe.embedding_bits != original.embedding_bits
    if recipe.activation_bits < 32:
        encoder = decoder = True
    return "both" if encoder and decoder else "encoder" if encoder else "decoder"


def absorbed_layers(layers: Sequence[object | None]) -> tuple[int, ...]:
    """For each kept layer the original layer whose output it should give.

    It is the last one before the next kept layer: a layer takes over what the dropped ones behind it did, so that
    every kept layer sees what it used to see. Of (kept, dropped, kept) the answer is (1, 2).
    """
    kept = [index for index, layer in enumerate(layers) if layer is not None]
    return tuple(following - 1 for following in (*kept[1:], len(layers)))


class EncodedClips:
    """A network's encoder outputs, worked out once per clip."""

    def __init__(self, network: Whisper) -> None:
        self._network, self._memory = network, ClipCache()

    def of(self, batch: Batch) -> Tensor:
        """(B, positions, n_audio_state), without gradient."""
        clips = self._memory.of(batch, lambda alone: (encode(self._network, alone.mel)[0],))
        return torch.stack([encoded for (encoded,) in clips])


class WhisperStudent(nn.Module):
    """A compressed network whose `part` has gradients.

    What is not trained is as in the artifact. What is trained reads activations as in the artifact; its weights are
    rounded while it trains with the method `qat`, and only at the end with `distill`. The token embedding is part of
    the decoder if `train_embedding` says so: it is half of tiny's parameters, and seldom what is broken. With `scales`,
    of all that the scales of integer matrices alone have gradients, the embedding's among them: they are few.

    `encoded`: what its decoder reads where its encoder is not trained; with `has_original_encoder`, what the teacher's
    reads as well. `is_original`: whether it has nothing to learn.
    """

    _divisors: Tensor | None

    def __init__(self, subject: Subject, part: Parts, method: RecoveryMethod, settings: TrainingSettings) -> None:
        super().__init__()
        self.part = part
        stacks = STACKS if part == "both" else (part,)
        subject = subject.before(method, stacks)
        compressed, unrounded = subject.compressed(), subject.unrounded()
        self.network, self.vocabulary = compressed.network, compressed.vocabulary
        if method == "scales":
            scale_while_training(self.network, subject.recipe, compressed, stacks)
        else:
            self._give_gradients(unrounded.network, stacks, train_embedding=settings.train_embedding)
        if method == "qat":
            round_while_training(self.network, subject.recipe, compressed)
        self.encoded = EncodedClips(self.network)
        self.register_buffer("_divisors", unrounded.inputs.divisors(ENCODER_READER), persistent=False)
        original = subject.model.network
        self.has_original_encoder = _same(self.network.encoder, original.encoder)
        self.is_original = self.has_original_encoder and (
            part == "encoder" or _same(self.network.decoder, original.decoder)
        )

    def _give_gradients(self, unrounded: Whisper, stacks: Collection[str], *, train_embedding: bool) -> None:
        for name, parameter in self.network.named_parameters():
            trained = name.partition(".")[0] in stacks and (train_embedding or not name.startswith(EMBEDDING))
            parameter.requires_grad_(trained)
            if trained:
                parameter.data = unrounded.get_parameter(name).data

    def forward(self, batch: Batch) -> StudentOutput:
        with parametrize.cached():
            return self._forward(batch)

    def _forward(self, batch: Batch) -> StudentOutput:
        if self.part == "decoder":
            return output_of_decoder(self.network, self.vocabulary, batch, self.encoded.of(batch))
        *states, encoded = encoder_states(self.network, batch.mel)
        divisors = self._divisors
        undivided = encoded if divisors is None else encoded * divisors
        if self.part == "encoder":
            return StudentOutput(encoded=undivided, encoder_states=tuple(states))
        decoded = output_of_decoder(self.network, self.vocabulary, batch, encoded)
        return StudentOutput(
            encoded=undivided,
            logits=decoded.logits,
            encoder_states=tuple(states),
            decoder_states=decoded.decoder_states,
        )

    def weights(self) -> dict[str, Tensor]:
        """What was trained, as `compression.techniques.trained_weights` keeps it."""
        return trained_weights(self.network)


def output_of_decoder(network: Whisper, vocabulary: Vocabulary, batch: Batch, encoded: Tensor) -> StudentOutput:
    """Logits and states of the tokens to predict; the rest, half of them, is not multiplied by the embedding."""
    inputs = vocabulary.rows[batch.inputs.cpu()]
    *states, last = (state[batch.rows] for state in decoder_states(network, inputs, encoded))
    logits = last @ network.decoder.token_embedding.weight.T
    return StudentOutput(logits=_of_all_tokens(logits, vocabulary), decoder_states=tuple(states))


def _of_all_tokens(logits: Tensor, vocabulary: Vocabulary) -> Tensor:
    """Logits (R, rows) of the tokens that a network has as (R, n_vocab) by the original's ids."""
    ids, size = vocabulary.ids.to(logits.device), len(vocabulary.rows)
    if len(ids) == size:
        return logits
    return logits.new_full((len(logits), size), -torch.inf).index_copy(1, ids, logits)


def _same(ours: nn.Module, theirs: nn.Module) -> bool:
    """Whether two modules compute the same, value for value."""
    if any(isinstance(module, RoundingLinear) for module in ours.modules()):
        return False
    own, others = ours.state_dict(), theirs.state_dict()
    return own.keys() == others.keys() and all(torch.equal(own[name], others[name]) for name in own)


@torch.no_grad()
def output_of_teacher(
    network: Whisper, batch: Batch, part: Parts, encoded: EncodedClips | None = None
) -> StudentOutput:
    """What the original makes of a batch. `encoded`: its encoder's outputs, where somebody keeps them."""
    whole = Vocabulary.whole(network.dims.n_vocab)
    if part == "decoder" and encoded is not None:
        return output_of_decoder(network, whole, batch, encoded.of(batch))
    *states, output = encoder_states(network, batch.mel)
    decoded = StudentOutput() if part == "encoder" else output_of_decoder(network, whole, batch, output)
    return StudentOutput(
        encoded=None if part == "decoder" else output,
        logits=decoded.logits,
        encoder_states=() if part == "decoder" else tuple(states),
        decoder_states=decoded.decoder_states,
    )
