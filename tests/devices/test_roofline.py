"""The model against its own formulas, and properties that any machine has."""

from dataclasses import replace
from math import isclose

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.operation import Operation, OperationKind
from devices.profile import known_profiles, load_description, load_profile
from devices.roofline import SHAPES, Roofline, modelled_tables, precisions

PROFILES = {name: load_profile(name) for name in known_profiles()}
MODELS = {name: Roofline.of(profile.description) for name, profile in PROFILES.items()}
names = st.sampled_from(sorted(PROFILES))


@st.composite
def operations(draw: st.DrawFn, device: str) -> Operation:
    """Any operation within the lattice."""
    kind: OperationKind = draw(st.sampled_from(sorted(SHAPES)))
    m, k, n = (draw(st.integers(min(nodes), max(nodes))) for nodes in SHAPES[kind])
    weight_bits, activation_bits = draw(st.sampled_from(precisions(kind, PROFILES[device].description)))
    return Operation(kind=kind, m=m, k=k, n=n, weight_bits=weight_bits, activation_bits=activation_bits)


def test_committed_tables_are_those_of_the_model() -> None:
    tables = dict(modelled_tables())
    assert {table.stem for table in tables} == set(known_profiles()) - {"host"}
    for file, text in tables.items():
        assert file.read_text(encoding="utf-8") == text, f"{file.name}: run python -m devices.roofline"
        assert len(text) < 300_000


def test_an_arithmetic_bound_product_by_hand() -> None:
    # 1500 x 384 x 1536 MAC at 4 threads x 1798 MHz x 3.975 MAC x 0.22; 30 us overhead
    operation = Operation(kind="linear", m=1500, k=384, n=1536)
    by_hand_ms = 1500 * 384 * 1536 / (4 * 1798e6 * 3.975 * 0.22) * 1e3 + 0.030
    assert isclose(MODELS["imx8mplus"].latency_ms(operation), by_hand_ms, rel_tol=1e-12)


def test_a_memory_bound_product_by_hand() -> None:
    # 384 x 51864 weights of 8 bits and a float32 scale per 32, at 8.4 GB/s; 12 us overhead
    operation = Operation(kind="linear", k=384, n=51864, weight_bits=8)
    by_hand_ms = 384 * 51864 * (1 + 4 / 32) / 8.4e9 * 1e3 + 0.012
    assert isclose(MODELS["rpi5"].latency_ms(operation), by_hand_ms, rel_tol=1e-12)


@given(st.data(), names)
def test_interpolation_stays_near_the_model(data: st.DataObject, device: str) -> None:
    """Between nodes the sum of terms is bent: interpolation in logarithms lies above it, never far off."""
    operation = data.draw(operations(device))
    latency = PROFILES[device].latency(operation)
    assert 0.75 < latency.mean_ms / MODELS[device].latency_ms(operation) < 1.6


@given(st.data(), names, st.sampled_from("mkn"), st.integers(0, 500))
def test_more_work_is_never_faster(data: st.DataObject, device: str, name: str, more: int) -> None:
    small = data.draw(operations(device))
    nodes = getattr(SHAPES[small.kind], name)
    large = replace(small, **{name: min(getattr(small, name) + more, max(nodes))})
    profile, model = PROFILES[device], MODELS[device]
    assert model.latency_ms(large) >= model.latency_ms(small)
    assert profile.latency(large).mean_ms >= profile.latency(small).mean_ms * (1 - 1e-9)


@given(names, st.integers(64, 5120), st.integers(64, 51864), st.booleans())
def test_fewer_weight_bits_never_slow_down_a_matrix_vector_product(device: str, k: int, n: int, integer: bool) -> None:
    times = [
        MODELS[device].latency_ms(
            Operation(kind="linear", k=k, n=n, weight_bits=bits, activation_bits=8 if integer else 32)
        )
        for bits in (4, 8, 16, 32)
    ]
    assert times == sorted(times)


@pytest.mark.parametrize("device", known_profiles())
def test_fewer_weight_bits_do_not_speed_up_an_encoder_product(device: str) -> None:
    times = [
        PROFILES[device].latency(Operation(kind="linear", m=1500, k=384, n=1536, weight_bits=bits)).mean_ms
        for bits in (4, 8, 16, 32)
    ]
    assert times == sorted(times, reverse=True)
    assert times[0] / times[-1] < 1.01


@pytest.mark.parametrize("device", known_profiles())
def test_lattices_cover_whisper_tiny_to_large(device: str) -> None:
    linear, convolution, attention = (SHAPES[kind] for kind in ("linear", "convolution", "attention"))
    assert max(linear.m) >= 1500
    assert max(linear.k) >= 5120
    assert max(linear.n) >= 51866
    assert max(convolution.m) >= 3000
    assert max(convolution.k) >= 3 * 1280
    assert max(attention.n) >= 1500
    assert max(SHAPES["softmax"].m) >= 20 * 1500
    assert load_description(device).threads >= 1
