"""The work of HAT's transformers against its matrices written out, and files that cannot be used."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.latency.hat import BEAM, INNER, TOKENS, read_parts
from common.errors import InputError

HEADER = (
    "encoder_embed_dim,encoder_layer_num,encoder_ffn_embed_dim_avg,encoder_self_attention_heads_avg,decoder_embed_dim,"
    "decoder_layer_num,decoder_ffn_embed_dim_avg,decoder_self_attention_heads_avg,decoder_ende_attention_heads_avg,"
    "decoder_arbitrary_ende_attn_avg,latency_mean_encoder,latency_mean_decoder,latency_std_encoder,latency_std_decoder"
)
GOOD = "640,2,768,4,512,3,1000,3,6,2,200.5,5000.25,1,1"


def written(folder: Path, *rows: str, header: str = HEADER) -> Path:
    file = folder / "latencies.csv"
    file.write_text("\n".join([header, *rows, ""]), encoding="utf-8")
    return file


def test_multiply_adds_are_those_of_the_matrices(tmp_path: Path) -> None:
    """Two layers with FFNs of 512 and 1024 on each side; the decoder's attend to one and to three encoder layers."""
    row = "640,2,768,4,512,2,768,3,6,2,200.5,5000.25,1,1"
    encoder, decoder = read_parts(written(tmp_path, row, row), vocabulary=1000)

    def product(rows: int, *shapes: tuple[int, int]) -> int:
        return sum(rows * inner * outer for inner, outer in shapes)

    expected = 0
    for ffn in (512, 1024):
        expected += product(TOKENS, *[(640, INNER)] * 3, (INNER, 640), (640, ffn), (ffn, 640))
        expected += 2 * product(TOKENS, (INNER, TOKENS))
    np.testing.assert_array_equal(encoder.multiply_adds, [expected, expected])
    assert encoder.measured_ms[0] == 200.5

    expected = 0
    for ffn, attended in ((512, 1), (1024, 3)):
        expected += product(BEAM * attended * TOKENS, (640, INNER), (640, INNER))
        for step in range(1, TOKENS + 1):
            expected += product(BEAM, *[(512, INNER)] * 3, (INNER, 512), (512, INNER), (INNER, 512))
            expected += product(BEAM, (512, ffn), (ffn, 512))
            expected += 2 * product(BEAM, (INNER, step)) + 2 * product(BEAM, (INNER, attended * TOKENS))
    expected += product(BEAM * TOKENS, (512, 1000))
    np.testing.assert_array_equal(decoder.multiply_adds, [expected, expected])
    assert decoder.measured_ms[0] == 5000.25


def test_terms_are_calls_bytes_and_products(tmp_path: Path) -> None:
    encoder, decoder = read_parts(written(tmp_path, GOOD, GOOD), vocabulary=1000)
    assert {term.name: term.work[0] for term in encoder.terms} == {
        "layer": 2,
        "matrices": TOKENS * 2 * (4 * 640 * INNER + 2 * 640 * 768),
    }
    assert {term.name: term.work[0] for term in decoder.terms} == {
        "step": TOKENS,
        "layer": 3 * TOKENS,
        "weights": TOKENS * 3 * 4 * (6 * 512 * INNER + 2 * 512 * 1000),
        "output": TOKENS * 512,
        "cross": 3 * 2 * TOKENS * BEAM * 2 * 640 * INNER,
    }


def test_constants_are_shown_in_their_unit(tmp_path: Path) -> None:
    layer, matrices = read_parts(written(tmp_path, GOOD, GOOD), vocabulary=1000)[0].terms
    assert layer.shown(12.5) == 12.5
    assert layer.shown(0.0) == 0.0
    # 1e6 multiply-adds in a quarter of a millisecond
    assert matrices.shown(0.25e-6) == pytest.approx(4.0)
    assert matrices.shown(0.0) is None


def test_cells_tell_shapes_apart_but_not_heads(tmp_path: Path) -> None:
    rows = [
        "640,6,768,4,512,3,1000,3,6,2,1,1,1,1",
        "640,6,768,8,512,3,1000,2,4,2,1,1,1,1",
        "640,6,853.3333333333334,4,512,3,1000,3,6,1,1,1,1,1",
        "640,6,853.3333333333333,4,512,3,1000,3,6,2,1,1,1,1",
    ]
    encoder, decoder = read_parts(written(tmp_path, *rows), vocabulary=1000)
    a, b, c, d = encoder.cells
    assert a == b != c == d
    a, b, c, d = decoder.cells
    assert a == b == d != c


def test_columns_may_come_in_any_order_and_in_company(tmp_path: Path) -> None:
    row = dict(zip(HEADER.split(","), GOOD.split(","), strict=True))
    names = ["comment", *sorted(name for name in row if "heads" not in name and "std" not in name)]
    line = ",".join(row.get(name, "?") for name in names)
    encoder, _ = read_parts(written(tmp_path, line, line, header=",".join(names)), vocabulary=1000)
    np.testing.assert_array_equal(encoder.measured_ms, [200.5, 200.5])


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        ((), HEADER, "holds 0 transformers; at least 2"),
        ((GOOD,), HEADER, "holds 1 transformers; at least 2"),
        ((GOOD, GOOD), HEADER.replace("decoder_layer_num", "layers"), "has no column decoder_layer_num"),
        ((), "", "has no column encoder_embed_dim, "),
        (
            (GOOD, GOOD.replace("200.5", "0")),
            HEADER,
            "line 3: latency_mean_encoder must be a positive number, but is '0'",
        ),
        ((GOOD, GOOD.replace("200.5", "-1")), HEADER, "line 3: latency_mean_encoder must .* '-1'"),
        ((GOOD.replace("200.5", "nan"), GOOD), HEADER, "line 2: latency_mean_encoder must .* 'nan'"),
        ((GOOD, GOOD, GOOD.replace("768", "wide")), HEADER, "line 4: encoder_ffn_embed_dim_avg must .* 'wide'"),
        ((GOOD, "640,2"), HEADER, "line 3: encoder_ffn_embed_dim_avg must .* None"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(
    tmp_path: Path, rows: tuple[str, ...], header: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read_parts(written(tmp_path, *rows, header=header), vocabulary=1000)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read .*none.csv"):
        read_parts(tmp_path / "none.csv", vocabulary=1000)
    with pytest.raises(InputError, match="cannot read"):
        read_parts(tmp_path, vocabulary=1000)
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InputError, match="cannot read"):
        read_parts(tmp_path / "binary.csv", vocabulary=1000)
