"""The transformers of HAT (Wang et al., ACL 2020, arXiv 2005.14187) and the work that each of them does.

HAT sampled encoder-decoder transformers from one super-network and timed each on a Raspberry Pi 4: float32 PyTorch, a
sentence of 30 tokens through the encoder, then 30 steps of the decoder, each for 5 hypotheses at once
(`latency_dataset.py`; 5 is fairseq's default beam). From `transformer_super.py` and `multihead_attention_super.py`:

- Queries, keys and values have 512 values each, however many heads there are and however wide the layers are. So heads
  change neither products nor weights, and nothing below depends on them.
- Layers' FFN widths differ. The file holds their mean, which is enough, since all below is linear in them.
- A decoder layer attends to the last one, two or three encoder layers; `decoder_arbitrary_ende_attn_avg` is the mean of
  1, 2, 3. Keys and values are projected from them at the first of the 30 steps, then kept.
- Each step ends with a product with the whole embedding, which input and output share.

Work is counted per translation. The file does not hold the vocabulary, so the last product is counted in dimensions.
"""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.errors import InputError

Array = NDArray[np.float64]

TOKENS = 30
BEAM = 5
INNER = 512
"""Values of all heads together: HAT's qkv-dim."""
VOCABULARY = 32_768
"""Of HAT's English-German data (`--nwordstgt 32768` of its preprocessing)."""

_COLUMNS = (
    "encoder_embed_dim",
    "encoder_layer_num",
    "encoder_ffn_embed_dim_avg",
    "decoder_embed_dim",
    "decoder_layer_num",
    "decoder_ffn_embed_dim_avg",
    "decoder_arbitrary_ende_attn_avg",
    "latency_mean_encoder",
    "latency_mean_decoder",
)


@dataclass(frozen=True, kw_only=True)
class Term:
    """One product of the model: work, shape (n,), times a fitted rate in ms per unit.

    `unit` is that of the constant as it is shown: the rate itself, or its inverse in 10^9 units of work a second.
    """

    name: str
    meaning: str
    unit: str
    inverse: bool
    work: Array

    def shown(self, rate: float) -> float | None:
        """The constant in `unit`; None where the fit found no cost."""
        if not self.inverse:
            return rate
        return 1e-6 / rate if rate > 0.0 else None


@dataclass(frozen=True, kw_only=True)
class Part:
    """Encoder or decoder of all transformers: its terms, its multiply-adds (n,), what was measured (n,) in ms.

    `cells` (n,) numbers the combinations of all columns that the part's work depends on.
    """

    name: str
    terms: tuple[Term, ...]
    multiply_adds: Array
    measured_ms: Array
    cells: NDArray[np.int64]

    @property
    def work(self) -> Array:
        """Shape (n, terms)."""
        return np.column_stack([term.work for term in self.terms])


def read_parts(path: Path, vocabulary: int) -> tuple[Part, Part]:
    """Encoder and decoder of the rows of HAT's CSV; InputError names the file, line and column that cannot be used."""
    table = _read(path)
    return _encoder(table), _decoder(table, vocabulary)


def _encoder(table: dict[str, Array]) -> Part:
    width, layers, ffn = (table[f"encoder_{name}"] for name in ("embed_dim", "layer_num", "ffn_embed_dim_avg"))
    matrices = TOKENS * layers * (4 * INNER * width + 2 * width * ffn)
    attention = layers * 2 * TOKENS**2 * INNER
    terms = (
        Term(
            name="layer",
            meaning="per layer, whatever its width: calls, attention",
            unit="ms per layer",
            inverse=False,
            work=layers,
        ),
        Term(
            name="matrices",
            meaning=f"products of {TOKENS} rows with weights",
            unit="GMAC/s",
            inverse=True,
            work=matrices,
        ),
    )
    return Part(
        name="encoder",
        terms=terms,
        multiply_adds=matrices + attention,
        measured_ms=table["latency_mean_encoder"],
        cells=_cells(width, layers, ffn),
    )


def _decoder(table: dict[str, Array], vocabulary: int) -> Part:
    width, layers, ffn = (table[f"decoder_{name}"] for name in ("embed_dim", "layer_num", "ffn_embed_dim_avg"))
    attended, encoder_width = table["decoder_arbitrary_ende_attn_avg"], table["encoder_embed_dim"]
    # self-attention's four matrices, cross-attention's query and output, the FFN's two
    weights = layers * (6 * INNER * width + 2 * width * ffn)
    cross = layers * attended * TOKENS * BEAM * 2 * INNER * encoder_width
    self_keys = TOKENS * (TOKENS + 1) / 2
    attention = layers * BEAM * 2 * INNER * (self_keys + TOKENS * attended * TOKENS)
    terms = (
        Term(name="step", meaning="per step", unit="ms per step", inverse=False, work=np.full_like(width, TOKENS)),
        Term(
            name="layer",
            meaning="per layer and step, whatever its width: calls, attention, caches",
            unit="ms per call",
            inverse=False,
            work=TOKENS * layers,
        ),
        Term(
            name="weights",
            meaning=f"layers' weights, streamed each step for {BEAM} rows",
            unit="GB/s",
            inverse=True,
            work=4 * TOKENS * weights,
        ),
        Term(
            name="output",
            meaning="product with the vocabulary, per step and dimension",
            unit="ms per dimension",
            inverse=False,
            work=TOKENS * width,
        ),
        Term(
            name="cross",
            meaning=f"keys and values of the attended encoder layers, {TOKENS * BEAM} rows each, once",
            unit="GMAC/s",
            inverse=True,
            work=cross,
        ),
    )
    return Part(
        name="decoder",
        terms=terms,
        multiply_adds=BEAM * TOKENS * (weights + vocabulary * width) + cross + attention,
        measured_ms=table["latency_mean_decoder"],
        cells=_cells(width, layers, ffn, attended, encoder_width),
    )


def _cells(*columns: Array) -> NDArray[np.int64]:
    # FFN means of equal layers may differ in their last bit
    return np.unique(np.column_stack(columns).round(6), axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _read(path: Path) -> dict[str, Array]:
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            reader = csv.DictReader(lines)
            missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise InputError(f"{path} has no column {', '.join(missing)}; HAT's latency files have these columns")
            rows = [[_number(path, reader.line_num, name, row[name]) for name in _COLUMNS] for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read {path}: {error}; --csv needs a latency file of HAT's") from error
    if len(rows) < 2:
        raise InputError(f"{path} holds {len(rows)} transformers; at least 2 are needed, one to fit and one to predict")
    return dict(zip(_COLUMNS, np.array(rows).T, strict=True))


def _number(path: Path, line: int, column: str, text: str | Sequence[str] | None) -> float:
    try:
        value = float(text) if isinstance(text, str) else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value <= 0.0:
        raise InputError(f"{path}, line {line}: {column} must be a positive number, but is {text!r}")
    return value
