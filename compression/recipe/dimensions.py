"""Whisper's own dimensions, without torch."""

from dataclasses import dataclass, fields

from common.errors import UnknownNameError

ENGLISH_ONLY, MULTILINGUAL, THIRD_LARGE = VOCABULARIES = (51864, 51865, 51866)
"""Tokens of the English-only, the multilingual and large-v3's vocabulary."""
AUDIO_POSITIONS = 1500
"""Of the encoder, 20 ms each: Whisper's window of 30 s."""
MEL_BANDS = (80, 128)
"""For which openai-whisper has filters."""
LEAST_TEXT_POSITIONS = 16
"""Half of them hold a prompt and text."""
TIMESTAMPS = 1501
"""Of them, the last ones: 0 to 30 s in steps of 20 ms."""


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
            if type(value) is not int:
                raise ValueError(f"`{field.name}` must be a whole number, but got {value!r}")
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
    def parameters(self) -> int:
        """Of the network. The output matrix is the embedding; the encoder's positions are computed."""
        audio, text = self.n_audio_state, self.n_text_state
        convolutions = 3 * (self.n_mels + audio) * audio + 2 * audio
        encoder = convolutions + self.n_audio_layer * (_attention(audio) + _ffn(audio)) + 2 * audio
        decoder = self.n_text_layer * (2 * _attention(text) + _ffn(text)) + 2 * text
        return encoder + decoder + (self.n_vocab + self.n_text_ctx) * text

    @property
    def is_multilingual(self) -> bool:
        """As in openai-whisper: English-only vocabularies have 51,864 tokens."""
        return self.n_vocab >= MULTILINGUAL

    @property
    def text_tokens(self) -> int:
        """Tokens that stand for text, in one of Whisper's own vocabularies; the special ones follow them."""
        return 50257 if self.is_multilingual else 50256

    @property
    def unusable(self) -> str | None:
        """Why no Whisper of these dimensions can be used here, or None when it can."""
        if self.n_audio_ctx != AUDIO_POSITIONS:
            return (
                f"its encoder has {self.n_audio_ctx} positions, {self.n_audio_ctx / 50:g} s of audio: only Whispers of "
                f"{AUDIO_POSITIONS} (30 s) can be used (a recipe's window_s shortens the window of one)"
            )
        if self.n_mels not in MEL_BANDS:
            return f"it hears {self.n_mels} mel bands: openai-whisper has filters for {MEL_BANDS[0]} and {MEL_BANDS[1]}"
        if self.n_audio_state != self.n_text_state:
            return f"its encoder is {self.n_audio_state} wide and its decoder {self.n_text_state}: they must be equal"
        if self.n_audio_state % 2 or self.n_audio_state < 4:
            return f"it is {self.n_audio_state} wide: sines and cosines of positions need an even width of at least 4"
        if self.n_text_ctx < LEAST_TEXT_POSITIONS:
            return f"its decoder has {self.n_text_ctx} positions, at least {LEAST_TEXT_POSITIONS} are needed"
        return None

    def embedding_rows(self, text_tokens: int) -> int:
        """Rows of the token embedding where so many text tokens are kept; 0: the whole vocabulary.

        A shorter one keeps every special token, but of the timestamps only the first.
        """
        return text_tokens + self.n_vocab - self.text_tokens - (TIMESTAMPS - 1) if text_tokens else self.n_vocab


def _attention(width: int) -> int:
    """Parameters of an attention and the normalisation before it; keys have no bias."""
    return 4 * width * width + 3 * width + 2 * width


def _ffn(width: int) -> int:
    """Parameters of a feed-forward layer and the normalisation before it."""
    return 8 * width * width + 5 * width + 2 * width


_SIZES = {"tiny": (384, 6, 4), "base": (512, 8, 6), "small": (768, 12, 12), "medium": (1024, 16, 24)}
_LARGE = {
    "large": (32, 128, 51866),
    "large-v1": (32, 80, 51865),
    "large-v2": (32, 80, 51865),
    "large-v3": (32, 128, 51866),
    "turbo": (4, 128, 51866),
    "large-v3-turbo": (4, 128, 51866),
}


def published_models() -> tuple[str, ...]:
    """The names of OpenAI's models, smallest first."""
    return (*(name for size in _SIZES for name in (f"{size}.en", size)), *_LARGE)


def published_dimensions(name: str) -> Dimensions:
    """The dimensions of one of OpenAI's models (openai/whisper, model-card.md), without its weights.

    Raises UnknownNameError for another name.
    """
    if name not in published_models():
        raise UnknownNameError("model", name, published_models())
    if name in _LARGE:
        (text_layers, mels, vocabulary), (state, heads, layers) = _LARGE[name], (1280, 20, 32)
    else:
        state, heads, layers = _SIZES[name.removesuffix(".en")]
        text_layers, mels, vocabulary = layers, 80, 51864 if name.endswith(".en") else 51865
    return Dimensions(
        n_mels=mels,
        n_audio_ctx=1500,
        n_audio_state=state,
        n_audio_head=heads,
        n_audio_layer=layers,
        n_vocab=vocabulary,
        n_text_ctx=448,
        n_text_state=state,
        n_text_head=heads,
        n_text_layer=text_layers,
    )
