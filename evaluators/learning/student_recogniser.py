"""A student that is no Whisper, as the evaluator sees it (`Evaluator.evaluate_transcripts`)."""

import torch
from whisper.tokenizer import get_tokenizer

from compression.training.students.lstm import LstmStudent
from evaluators.accuracy.decoding import Ending, Hypothesis
from evaluators.learning.training_speech import training_window_s
from evaluators.speech.features import CachedFeatures
from evaluators.speech.language import language_of
from evaluators.speech.speech_set import Utterance
from runtime.repetition import is_loop
from runtime.window import FRAMES_PER_S


class StudentRecogniser:
    """Greedy decoding, one clip at a time. `window_s`: the shortest window, as in its training."""

    def __init__(
        self, student: LstmStudent, features: CachedFeatures, *, window_s: float, multilingual: bool, languages: int
    ) -> None:
        self._student, self._features, self._window_s = student.eval(), features, window_s
        self._multilingual, self._languages = multilingual, languages

    @torch.inference_mode()
    def __call__(self, utterance: Utterance, max_tokens: int) -> Hypothesis:
        """What the student says to an utterance."""
        language = language_of(utterance)
        tokenizer = get_tokenizer(self._multilingual, num_languages=self._languages, language=language)
        frames = round(training_window_s(self._window_s, utterance.duration_s) * FRAMES_PER_S)
        encoded = self._student.encode(self._features.mel(utterance)[None, :, :frames])
        prompt, said = list(tokenizer.sot_sequence_including_notimestamps), list[int]()
        while len(said) < max_tokens and not is_loop(said):
            states = self._student.spell(torch.tensor([prompt + said]), encoded)
            token = int(self._student.logits(states[0, -1]).argmax())
            if token == tokenizer.eot:
                break
            said.append(token)
        ended: Ending = "limit" if len(said) >= max_tokens else "loop" if is_loop(said) else "complete"
        text = tokenizer.decode([token for token in said if token < tokenizer.eot]).strip()
        return Hypothesis(text=text, tokens=tuple(said), ending=ended)
