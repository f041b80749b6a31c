"""Batched greedy decoding of any openai-whisper network, compressed or not.

The text is that of `whisper.decode` at temperature 0 without timestamps. What makes it faster:

- The tokens of all clips are packed into one (rows, n_state) matrix for everything that has weights, so the weights
  are read once per step instead of once per clip. Only attention runs clip by clip, each over its own cache.
  So no padding and no masking of clips: windows and lengths may differ, and a finished clip just leaves.
- A clip may come with a draft, a guess at its transcript. The decoder sees several of its tokens in one step
  and keeps the longest prefix that agrees with its own greedy choices (speculative decoding, Leviathan et al. 2023,
  at temperature 0): a wrong draft costs time, never text.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from whisper.model import MultiHeadAttention, ResidualAttentionBlock, TextDecoder, Whisper

from common.errors import EvaluationError
from compression.techniques.compressed import Compressed, Vocabulary
from compression.whisper.decoding_rules import rules_of
from compression.whisper.tokenizer import tokenizer_of
from runtime.repetition import is_loop, without_repeats
from runtime.unheard import POSITION_S, Listening

Ending = Literal["complete", "limit", "loop"]

CACHE_BYTES = 1 << 30
"""Keys and values of the clips in flight; more clips wait (18 MB per 30 s clip of tiny, 37 MB of base)."""
FIRST_REACH = 16
"""Draft tokens seen in the first step; doubled when all are right, halved when one is wrong."""
ALIGN_TOKENS = 8
"""How far ahead in its draft a clip looks for the token that it chose instead."""
LOGIT_ROWS = 256
"""Rows of logits at a time: 53 MB for Whisper's vocabulary."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """What is to be decoded.

    `features`: the encoder's output (positions, n_audio_state). `language`: Whisper's code, such as "en"; English-only
    models ignore it. `max_tokens`: where decoding ends at the latest; Whisper's own limit, n_text_ctx // 2, holds
    as well. `audio_s`: how much of what the encoder saw is the clip, silence behind it not included; None: all of it.
    `draft`: the original's ids of a guess at the transcript, without prompt and end; may be empty.
    """

    features: Tensor
    language: str
    max_tokens: int
    audio_s: float | None = None
    draft: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise ValueError(f"`max_tokens >= 1` must hold, but got {self.max_tokens}")


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """A transcript. `tokens`: its ids, those of the original vocabulary, without prompt and end. `ending`: end token,
    token limit or repetition loop, whose unit is once in `text`. `listening`: where in the audio its tokens listened;
    None where nobody looked. `detected`: the language that a multilingual network hears, whatever it was told.
    """

    text: str
    tokens: tuple[int, ...]
    ending: Ending
    listening: Listening | None = field(default=None, compare=False)
    detected: str | None = None


def joined(parts: Sequence[Hypothesis]) -> Hypothesis:
    """The transcript of a clip that was heard in parts, at least one. `ending`: the first that is not complete."""
    return Hypothesis(
        text=" ".join(part.text for part in parts if part.text),
        tokens=tuple(token for part in parts for token in part.tokens),
        ending=next((part.ending for part in parts if part.ending != "complete"), "complete"),
        detected=parts[0].detected,
    )


@torch.inference_mode()
def decode(compressed: Compressed, clips: Sequence[Clip]) -> tuple[Hypothesis, ...]:
    """Greedy transcripts of the clips, in their order; of a network as it is by `Compressed.original`.

    The modules of the network are called, never their raw weights (except the embedding, which Whisper itself uses as
    its output matrix), so heads, channels and blocks may be missing and layers may quantise their input.
    Raises EvaluationError when the network's logits are not finite.
    """
    network, vocabulary = compressed.network, compressed.vocabulary
    streams = [_Stream(network, clip, vocabulary) for clip in clips]
    waiting = deque(streams)
    active: list[_Stream] = []
    while waiting or active:
        while waiting and (not active or sum(s.cache_bytes for s in (*active, waiting[0])) <= CACHE_BYTES):
            active.append(waiting.popleft())
            active[-1].open()
        _step(network.decoder, active, vocabulary)
        active = [stream for stream in active if stream.ending is None]
    return tuple(stream.hypothesis() for stream in streams)


class _Stream:
    """One clip being decoded: its caches, its tokens so far and its draft.

    `fed`: tokens that the decoder has not seen yet, the prompt at first, then the last choice.
    """

    def __init__(self, network: Whisper, clip: Clip, vocabulary: Vocabulary) -> None:
        self.tokenizer = tokenizer_of(network, clip.language)
        self.rules = rules_of(network, self.tokenizer)
        self.fed = list(self.tokenizer.sot_sequence_including_notimestamps)
        self.tokens: list[int] = []
        self.ending: Ending | None = None
        self.listening: Listening | None = None
        self.detected: str | None = None
        self.caches: list[_Caches] = []
        self._clip = clip
        self._blocks = network.decoder.blocks
        self._max_tokens = min(clip.max_tokens, network.dims.n_text_ctx // 2)
        self._capacity = len(self.fed) + self._max_tokens
        self._draft = [token for token in clip.draft if vocabulary.rows[token] >= 0]
        self._reach = FIRST_REACH
        self._proposed: list[int] = []
        self._queries: list[Tensor] = []

    @property
    def length(self) -> int:
        """Positions that the decoder has seen."""
        return self.caches[0].length

    @property
    def cache_bytes(self) -> int:
        """Bytes of float32 keys and values, for attention to the text and to the clip."""
        text, audio = self._capacity, len(self._clip.features)
        return sum(
            8 * (text * len(block.attn.query.weight) + audio * len(block.cross_attn.query.weight))
            for block in self._blocks
        )

    def open(self) -> None:
        """Project the clip's features to keys and values, once per layer."""
        self.caches = [_Caches(block, self._clip.features, self._capacity) for block in self._blocks]

    def rows(self) -> list[int]:
        """Tokens for the next step: those not seen yet, then a piece of the draft."""
        room = self._max_tokens - len(self.tokens) - 1
        self._proposed = self._draft[: min(self._reach, room)]
        return self.fed + self._proposed

    def accept(self, choices: list[int]) -> None:
        """Take the greedy choices after the last fed token and after each proposed one, as far as they hold."""
        agreed = 0
        while agreed < len(self._proposed) and choices[agreed] == self._proposed[agreed]:
            agreed += 1
        self._reach = 2 * self._reach if agreed == len(self._proposed) else max(1, self._reach // 2)
        for cache in self.caches:
            cache.length += len(self.fed) + agreed
        self._queries.append(self.caches[-1].query[:, len(self.fed) - 1 : len(self.fed) + agreed])
        self.fed = [choices[agreed]]
        for token in choices[: agreed + 1]:
            self._take(token)
            if self.ending:
                self.listening = self._listening()
                self.caches = []
                return

    def _take(self, token: int) -> None:
        if token == self.tokenizer.eot:
            self.ending = "complete"
            return
        self.tokens.append(token)
        ahead = self._draft[:ALIGN_TOKENS]
        if token in ahead:
            del self._draft[: ahead.index(token) + 1]
        if len(self.tokens) >= self._max_tokens:
            self.ending = "limit"
        elif is_loop(self.tokens):
            self.ending = "loop"

    def _listening(self) -> Listening:
        """By the last block's attention to the clip: see `runtime.unheard`."""
        attention = self.caches[-1].attention(torch.cat(self._queries, dim=1)[:, : len(self.tokens)])
        spelling, first_time = self.tokenizer.encoding.decode_single_token_bytes, self.tokenizer.timestamp_begin
        spellings = [spelling(token) if token < first_time else b"" for token in self.tokens]
        audio_s = len(self._clip.features) * POSITION_S if self._clip.audio_s is None else self._clip.audio_s
        return Listening.to(audio_s, spellings=spellings, attention=attention.cpu().numpy())

    def hypothesis(self) -> Hypothesis:
        """The transcript, once decoding has ended."""
        if self.ending is None:
            raise RuntimeError("this clip is still being decoded")
        kept = self.tokens if self.ending == "complete" else without_repeats(self.tokens)
        text = self.tokenizer.decode(kept).strip()
        return Hypothesis(
            text=text,
            tokens=tuple(self.tokens),
            ending=self.ending,
            listening=self.listening,
            detected=self.detected,
        )


class _Caches:
    """Keys and values (heads, positions, head width) of one block for one clip.

    `length`: positions that hold text; what lies behind them belongs to rejected drafts and is overwritten. `query`:
    what last attended to the clip.
    """

    def __init__(self, block: ResidualAttentionBlock, features: Tensor, capacity: int) -> None:
        own, cross = block.attn, block.cross_attn
        # with a batch dimension, as the modules are called in Whisper's own forward pass
        self._clip_keys = _split_heads(cross, cross.key(features[None])[0]).contiguous()
        self._clip_values = _split_heads(cross, cross.value(features[None])[0]).contiguous()
        shape = (own.n_head, capacity, len(own.query.weight) // own.n_head)
        self._text_keys, self._text_values = features.new_empty(shape), features.new_empty(shape)
        self.query = features.new_empty(shape)
        self.length = 0

    def attend_text(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Append keys and values (heads, rows, width); every row sees what comes before it and itself."""
        start, end = self.length, self.length + query.shape[1]
        self._text_keys[:, start:end], self._text_values[:, start:end] = key, value
        sees = query.new_ones(end - start, end, dtype=torch.bool).tril(start) if end - start > 1 else None
        keys, values = self._text_keys[:, :end], self._text_values[:, :end]
        return scaled_dot_product_attention(query[None], keys[None], values[None], attn_mask=sees)[0]

    def attend_clip(self, query: Tensor) -> Tensor:
        self.query = query
        return scaled_dot_product_attention(query[None], self._clip_keys[None], self._clip_values[None])[0]

    def attention(self, queries: Tensor) -> Tensor:
        """Where queries (heads, rows, width) look in the clip: (rows, positions), the mean over the heads."""
        scores = queries @ self._clip_keys.transpose(1, 2) / queries.shape[-1] ** 0.5
        return scores.softmax(dim=-1).mean(dim=0)


def _step(decoder: TextDecoder, streams: list[_Stream], vocabulary: Vocabulary) -> None:
    """Show every stream its next tokens and let it take the greedy choices."""
    chunks = [stream.rows() for stream in streams]
    lengths = [len(chunk) for chunk in chunks]
    positions = [torch.arange(s.length, s.length + n) for s, n in zip(streams, lengths, strict=True)]
    fed = vocabulary.rows[[token for chunk in chunks for token in chunk]]
    x = decoder.token_embedding(fed.to(decoder.positional_embedding.device))
    x = x + decoder.positional_embedding[torch.cat(positions)]
    for index, block in enumerate(decoder.blocks):
        caches = [stream.caches[index] for stream in streams]
        x = x + _text_attention(block.attn, block.attn_ln(x), lengths, caches)
        x = x + _clip_attention(block.cross_attn, block.cross_attn_ln(x), lengths, caches)
        x = x + block.mlp(block.mlp_ln(x))
    parts = x.split(lengths)
    _detect_languages(decoder, {s: part[0] for s, part in zip(streams, parts, strict=True) if not s.length}, vocabulary)
    rows = [part[len(s.fed) - 1 :] for s, part in zip(streams, parts, strict=True)]
    for stream, chosen in zip(streams, _greedy_choices(decoder, rows, streams, vocabulary), strict=True):
        stream.accept(chosen)


def _detect_languages(decoder: TextDecoder, opened: Mapping[_Stream, Tensor], vocabulary: Vocabulary) -> None:
    """What a multilingual network hears: the likeliest language behind the start, as `whisper.detect_language` has it.

    `opened`: of streams in their first step, what leaves the last block at the start token (n_state,), which sees
    nothing of the language that comes after it.
    """
    tokenizer = next((stream.tokenizer for stream in opened), None)
    if tokenizer is None or tokenizer.language is None:
        return
    codes, rows = tokenizer.all_language_codes, vocabulary.rows[list(tokenizer.all_language_tokens)]
    logits = decoder.ln(torch.stack(list(opened.values()))) @ decoder.token_embedding.weight[rows].T
    for stream, best in zip(opened, logits.argmax(1).tolist(), strict=True):
        stream.detected = codes[best]


def _text_attention(attention: MultiHeadAttention, x: Tensor, lengths: list[int], caches: list[_Caches]) -> Tensor:
    """The packed rows (rows, n_state) of every clip attend to the clip's own text."""
    projected = (attention.query(x), attention.key(x), attention.value(x))
    parts = zip(*(_split_heads(attention, p).split(lengths, dim=1) for p in projected), strict=True)
    mixed = [cache.attend_text(*qkv) for cache, qkv in zip(caches, parts, strict=True)]
    return attention.out(_join_heads(mixed))


def _clip_attention(attention: MultiHeadAttention, x: Tensor, lengths: list[int], caches: list[_Caches]) -> Tensor:
    """The packed rows (rows, n_state) of every clip attend to the clip's audio."""
    queries = _split_heads(attention, attention.query(x)).split(lengths, dim=1)
    mixed = [cache.attend_clip(query) for cache, query in zip(caches, queries, strict=True)]
    return attention.out(_join_heads(mixed))


def _split_heads(attention: MultiHeadAttention, x: Tensor) -> Tensor:
    """(rows, heads * width) -> (heads, rows, width)."""
    return x.unflatten(-1, (attention.n_head, -1)).transpose(0, 1)


def _join_heads(parts: list[Tensor]) -> Tensor:
    """Several (heads, rows, width) -> (all rows, heads * width)."""
    return torch.cat(parts, dim=1).transpose(0, 1).flatten(1)


def _greedy_choices(
    decoder: TextDecoder, parts: list[Tensor], streams: list[_Stream], vocabulary: Vocabulary
) -> list[list[int]]:
    """For every stream the likeliest allowed token after each of its rows (rows, n_state)."""
    lengths = [len(part) for part in parts]
    x = decoder.ln(torch.cat(parts))
    rules = streams[0].rules
    suppressed, blanks = (vocabulary.kept_rows(ids) for ids in (rules.suppressed, rules.begin_suppressed))
    begins = torch.cat([torch.arange(n) + len(s.tokens) == 0 for s, n in zip(streams, lengths, strict=True)])
    chosen = []
    for rows, begin in zip(x.split(LOGIT_ROWS), begins.split(LOGIT_ROWS), strict=True):
        logits = rows @ decoder.token_embedding.weight.T
        logits.index_fill_(1, suppressed.to(logits.device), -torch.inf)
        logits[begin.nonzero(), blanks] = -torch.inf
        highest, best = logits.max(1)
        if not highest.isfinite().all():
            raise EvaluationError("the network's logits are not finite: it computes no transcript")
        chosen.append(vocabulary.ids[best.cpu()])
    return [part.tolist() for part in torch.cat(chosen).split(lengths)]
