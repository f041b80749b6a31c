"""Knowledge distillation: a student learns what the original model says and thinks."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from whisper.model import Whisper

from compression.training.batches import Batch
from compression.training.clip_cache import ClipCache, Tensors
from compression.training.losses import SoftTargets, projection, relative_error, soft_loss
from compression.training.settings import TrainingSettings
from compression.training.spelling import Spelling
from compression.training.whisper_student import EncodedClips, Parts, StudentOutput, output_of_teacher

KEPT_LOGITS = 64
"""Of each token of the teacher."""


@dataclass(frozen=True, kw_only=True)
class Matching:
    """Which states of the student should give which of the teacher's, as pairs of block numbers."""

    encoder: tuple[tuple[int, int], ...] = ()
    decoder: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Taught:
    encoded: Tensor | None
    targets: SoftTargets | None
    encoder_states: Tensors
    decoder_states: Tensors


class Teacher:
    """The original model, whose answers to a clip are kept; it hears the same audio as the student.

    `encoded`: its encoder's outputs, where the student keeps them. `spelling`: the student's, if it has its own.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what it is asked, and what is known
        self,
        network: Whisper,
        part: Parts,
        matching: Matching,
        settings: TrainingSettings,
        encoded: EncodedClips | None = None,
        spelling: Spelling | None = None,
    ) -> None:
        self.dims = network.dims
        self._network = network
        self._part = part
        self._matching = matching if settings.hidden else Matching()
        self._encoded = encoded
        self._temperature = settings.temperature
        self._spelling = spelling
        self._memory = ClipCache()

    @property
    def compute(self) -> torch.device:
        """Where it computes, and so the student."""
        return self._network.device

    def taught(self, batch: Batch) -> _Taught:
        """Its answers to the batch's clips, rows of tokens one clip after the other."""
        clips = self._memory.of(batch, self._answers)
        columns = list(zip(*clips, strict=True))

        def take(count: int) -> list[tuple[Tensor, ...]]:
            taken, columns[:] = columns[:count], columns[count:]
            return taken

        encoded = torch.stack(take(1)[0]) if self._part != "decoder" else None
        states = tuple(torch.stack(column) for column in take(len(self._matching.encoder)))
        targets = None
        if self._part != "encoder":
            tokens, logits, others = (torch.cat(column) for column in take(3))
            targets = SoftTargets(tokens=tokens, logits=logits, others=others)
        return _Taught(
            encoded=encoded,
            targets=targets,
            encoder_states=states,
            decoder_states=tuple(torch.cat(column) for column in columns),
        )

    def _answers(self, alone: Batch) -> Tensors:
        output = output_of_teacher(self._network, alone, self._part, self._encoded)
        answers: list[Tensor] = []
        if output.encoded is not None:
            answers.append(output.encoded[0])
        answers += [output.encoder_states[theirs][0] for _, theirs in self._matching.encoder]
        if output.logits is not None:
            logits = self._spelling.folded(output.logits) if self._spelling else output.logits
            targets = SoftTargets.of(logits, temperature=self._temperature, k=KEPT_LOGITS)
            answers += [targets.tokens, targets.logits, targets.others]
        return (*answers, *(output.decoder_states[theirs] for _, theirs in self._matching.decoder))


class Distillation(nn.Module):
    """The loss of a student on a batch, with the projections that are learned beside it.

    `student`: a module that turns a `Batch` into `StudentOutput`; its states may be fewer than the teacher's.

    soft * T^2 KL(teacher || student) + hard * cross-entropy of the transcript + encoded * error of the encoder's output
    + hidden * mean error of the matched states, each term where the student is trained. Errors are relative
    (`losses.relative_error`).
    """

    def __init__(self, student: nn.Module, teacher: Teacher, settings: TrainingSettings, *, matching: Matching) -> None:
        super().__init__()
        self.student, self._teacher, self._settings = student, teacher, settings
        self._matching = matching if settings.hidden else Matching()

        def projections(count: int, width: int) -> nn.ModuleList:
            return nn.ModuleList(projection(width) for _ in range(count))

        self.encoder_projections = projections(len(self._matching.encoder), teacher.dims.n_audio_state)
        self.decoder_projections = projections(len(self._matching.decoder), teacher.dims.n_text_state)
        self.to(teacher.compute)

    def forward(self, batch: Batch) -> Tensor:
        answer: StudentOutput = self.student(batch)
        taught = self._teacher.taught(batch)
        settings, terms = self._settings, []
        if answer.logits is not None and taught.targets is not None:
            if settings.soft:
                terms.append(settings.soft * soft_loss(answer.logits, taught.targets, temperature=settings.temperature))
            if settings.hard:
                terms.append(settings.hard * functional.cross_entropy(answer.logits, batch.targets))
        if answer.encoded is not None and taught.encoded is not None and settings.encoded:
            terms.append(settings.encoded * relative_error(answer.encoded, taught.encoded))
        errors = self._state_errors(answer, taught)
        if errors:
            terms.append(settings.hidden * torch.stack(errors).mean())
        return torch.stack(terms).sum()

    def _state_errors(self, answer: StudentOutput, taught: _Taught) -> list[Tensor]:
        encoder = zip(self._matching.encoder, self.encoder_projections, taught.encoder_states, strict=True)
        decoder = zip(self._matching.decoder, self.decoder_projections, taught.decoder_states, strict=True)
        errors = [relative_error(layer(answer.encoder_states[ours]), theirs) for (ours, _), layer, theirs in encoder]
        errors += [relative_error(layer(answer.decoder_states[ours]), theirs) for (ours, _), layer, theirs in decoder]
        return errors
