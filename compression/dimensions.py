"""Whisper's own dimensions, without torch."""

from dataclasses import dataclass, fields


@dataclass(frozen=True, kw_only=True, slots=True)
class Dimensions:
    """The hyper-parameters of an uncompressed Whisper; names as in openai-whisper's `ModelDimensions`."""

    n_mels: int
    n_audio_ctx: int
    n_audio_state: int
    n_audio_head: int
    n_audio_layer: int
    n_vocab: int
    n_text_ctx: int
    n_text_state: int
    n_text_head: int
    n_text_layer: int

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value < 1:
                raise ValueError(f"`{field.name} >= 1` must hold, but got {value}")
        for state, heads in ((self.n_audio_state, self.n_audio_head), (self.n_text_state, self.n_text_head)):
            if state % heads:
                raise ValueError(f"the width must be a multiple of the heads, but got {state} and {heads}")

    @property
    def audio_head_width(self) -> int:
        return self.n_audio_state // self.n_audio_head

    @property
    def text_head_width(self) -> int:
        return self.n_text_state // self.n_text_head

    @property
    def audio_ffn(self) -> int:
        """FFN channels of an encoder layer: four times the width (Radford et al. 2022)."""
        return 4 * self.n_audio_state

    @property
    def text_ffn(self) -> int:
        """FFN channels of a decoder layer: four times the width (Radford et al. 2022)."""
        return 4 * self.n_text_state

    @property
    def is_multilingual(self) -> bool:
        """As in openai-whisper: English-only vocabularies have 51,864 tokens."""
        return self.n_vocab >= 51865
