"""Measuring divergence: one pass of encoder and decoder a clip, no decoding loop, no transcripts of people's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from cachetools import LRUCache
from torch import Tensor
from whisper.audio import log_mel_spectrogram, pad_or_trim
from whisper.model import Whisper

from common.errors import EvaluationError
from compression.techniques.compressed import Compressed
from compression.whisper.load import LoadedModel
from compression.whisper.network import embedded_decoder_states, encode
from compression.whisper.tokenizer import tokenizer_of
from evaluators.accuracy.decoding import Clip, Hypothesis, decode
from evaluators.accuracy.divergence import Divergence
from evaluators.accuracy.known_transcripts import KnownTranscripts
from evaluators.speech.divergence_clips import DivergenceClip
from runtime.window import WINDOW_LIMIT_S, encoder_frames

ENCODER_CACHE_BYTES = 1 << 29
"""Room for encoder outputs: those of 8 clips in a window of 15 s at tiny's width take 9 MB."""
ANSWERS_CACHE_BYTES = 1 << 29
"""Room for the original's distributions: those of 8 clips in one window take 60 MB."""

MOST_MISSING = 1 - 1e-6
"""Of probability: what float32 can tell from all of it. 14 nats."""

Stop = Callable[[Divergence], bool]
"""Sees what was measured so far; whether that is enough."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Reference:
    """A clip and what the original says of it.

    `mel` (n_mels, 3000). `tokens` (T,): the prompt, what it said, the end.
    """

    duration_s: float
    mel: Tensor
    tokens: Tensor
    prompt_length: int


class DivergenceMeter:
    """Compares networks with the original on clips; those in which the original says nothing are left out.

    So are those whose transcript has no end, unless none has one. The transcripts come from 30 s windows; a network is
    compared with the original in the network's own window, since a shorter one moves distributions by as much as 4
    bits in every layer do, and makes no errors more (docs/decisions/0026-a-window-is-judged-by-wer.md).
    `known`: where the original's transcripts of these clips are kept.
    Raises EvaluationError, when it is first used, if no clip is left.
    """

    def __init__(
        self, model: LoadedModel, clips: Sequence[DivergenceClip], known: KnownTranscripts | None = None
    ) -> None:
        self._model = model
        self._clips = clips
        self._known = known
        self._encoded: LRUCache[tuple[str, int, int], Tensor] = LRUCache(ENCODER_CACHE_BYTES, getsizeof=_bytes)
        self._answers: LRUCache[tuple[int, int], Tensor] = LRUCache(ANSWERS_CACHE_BYTES, getsizeof=_bytes)

    @property
    def clips(self) -> int:
        """How many clips are left."""
        return len(self._references)

    def forget(self) -> None:
        """Drop the outputs of encoders that are kept, where memory is wanted for something else."""
        self._encoded.clear()

    @torch.inference_mode()
    def measure(
        self,
        compressed: Compressed,
        *,
        window_s: float,
        encoder_key: str | None = None,
        enough: Stop | None = None,
        known: Divergence | None = None,
    ) -> Divergence:
        """The divergence of a network on the clips, or on as many as `enough` asks for, one at least.

        `window_s`, `encoder_key`: as for `Evaluator.evaluate`. `known`: of the first clips, which are not measured
        again. With p of the original and q of the network, both over the tokens that the network has, a token counts
        KL(p/m || q) - log m, where m is the mass that p has there: a shorter vocabulary costs what it leaves out.
        Raises EvaluationError when the logits are not finite.
        """
        pairs = list(zip(known.nats, known.tokens, strict=True)) if known else []
        for index in range(len(pairs), len(self._references)):
            frames = encoder_frames(window_s, self._references[index].duration_s)
            encoded = self._encoder_output(compressed.network, index, frames, encoder_key)
            pairs.append(self._of_clip(compressed, self._references[index], encoded, self._answer(index, frames)))
            if enough and enough(Divergence.of(pairs)):
                break
        return Divergence.of(pairs)

    def _of_clip(
        self, compressed: Compressed, reference: _Reference, encoded: Tensor, answer: Tensor
    ) -> tuple[float, int]:
        """Nats over all tokens, and their number. `answer` (T - prompt_length, n_vocab): the original's log p."""
        logits = self._logits(compressed, reference.tokens, reference.prompt_length, encoded)
        missing = answer[:, compressed.vocabulary.rows < 0].exp().sum(-1, keepdim=True)
        mass = torch.log1p(-missing.clamp(max=MOST_MISSING))
        kept = answer[:, compressed.vocabulary.ids] - mass
        found = (kept.exp() * (kept - logits.log_softmax(-1))).sum(-1) - mass.squeeze(-1)
        total = float(found.sum())
        if not torch.isfinite(found).all():
            raise EvaluationError("the network's logits are not finite: it predicts nothing")
        return max(total, 0.0), len(found)

    def _logits(self, compressed: Compressed, tokens: Tensor, prompt_length: int, encoded: Tensor) -> Tensor:
        """(T - prompt_length, n_vocab of the network), teacher-forced.

        A token that a shorter vocabulary lacks is read with the row that the original has for it.
        """
        network, embedding = compressed.network, compressed.network.decoder.token_embedding.weight
        rows = compressed.vocabulary.rows[tokens[:-1]]
        original = self._model.network.decoder.token_embedding.weight[tokens[:-1]]
        has_row = (rows >= 0)[:, None].to(embedding.device)
        read = torch.where(has_row, embedding[rows.clamp(min=0)], original)
        states = embedded_decoder_states(network, read[None], encoded[None])[-1][0]
        return states[prompt_length - 1 :] @ embedding.T

    def _answer(self, index: int, frames: int) -> Tensor:
        """The original's log p of each token behind the prompt, in a window of so many frames."""
        if (index, frames) not in self._answers:
            reference, network = self._references[index], self._model.network
            encoded = self._encoder_output(network, index, frames, None)
            logits = self._logits(Compressed.original(network), reference.tokens, reference.prompt_length, encoded)
            self._answers[index, frames] = logits.log_softmax(-1)
        return self._answers[index, frames]

    def _encoder_output(self, network: Whisper, index: int, frames: int, key: str | None) -> Tensor:
        reference = self._references[index]
        if key is None:
            return encode(network, reference.mel[None, :, :frames])[0]
        entry = (key, frames, index)
        if entry not in self._encoded:
            self._encoded[entry] = encode(network, reference.mel[None, :, :frames])[0]
        return self._encoded[entry]

    @cached_property
    def _references(self) -> tuple[_Reference, ...]:
        spoken = [pair for pair in zip(self._clips, self._transcripts(), strict=True) if pair[1].tokens]
        whole = [pair for pair in spoken if pair[1].ending == "complete"]
        if not spoken:
            raise EvaluationError("the original says nothing in the clips for divergence")
        return tuple(self._reference(clip, said) for clip, said in whole or spoken)

    def _transcripts(self) -> list[Hypothesis]:
        """Of all clips, by the original; each takes a decoding loop."""
        found = self._known.find(len(self._clips)) if self._known else None
        if found is None:
            found = [self._spoken(clip) for clip in self._clips]
            if self._known:
                self._known.keep(found)
        return found

    @torch.inference_mode()
    def _spoken(self, clip: DivergenceClip) -> Hypothesis:
        network, mel = self._model.network, self._mel(clip)
        encoded = encode(network, mel[None, :, : encoder_frames(WINDOW_LIMIT_S, clip.duration_s)])[0]
        limit = self._model.dimensions.n_text_ctx // 2
        heard = Clip(features=encoded, language=clip.language, max_tokens=limit)
        (hypothesis,) = decode(Compressed.original(network), [heard])
        return hypothesis

    def _mel(self, clip: DivergenceClip) -> Tensor:
        """(n_mels, 3000)."""
        return log_mel_spectrogram(pad_or_trim(torch.from_numpy(clip.samples)), self._model.dimensions.n_mels)

    def _reference(self, clip: DivergenceClip, said: Hypothesis) -> _Reference:
        tokenizer = tokenizer_of(self._model.network, clip.language)
        prompt = tokenizer.sot_sequence_including_notimestamps
        tokens = torch.tensor([*prompt, *said.tokens, tokenizer.eot])
        mel = self._mel(clip)
        return _Reference(duration_s=clip.duration_s, mel=mel, tokens=tokens, prompt_length=len(prompt))


def _bytes(tensor: Tensor) -> int:
    return tensor.nbytes
