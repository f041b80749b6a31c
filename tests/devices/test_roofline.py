"""The model against its own formulas by hand, and properties that any machine has."""

from dataclasses import replace
from math import isclose

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InputError
from devices.instruction_counts import GEMV_INSTRUCTIONS, weight_bytes
from devices.operation import OPERATION_KINDS, Operation
from devices.profile import known_profiles, load_description, load_profile
from devices.roofline import SHAPES, Roofline, modelled_tables, table_operations
from devices.streams import STREAMS

DESCRIPTIONS = {name: load_description(name) for name in known_profiles()}
MODELS = {name: Roofline.of(description) for name, description in DESCRIPTIONS.items()}
OPERATIONS = {name: tuple(table_operations(description)) for name, description in DESCRIPTIONS.items()}
names = st.sampled_from(sorted(MODELS))


def test_committed_tables_are_those_of_the_model() -> None:
    tables = dict(modelled_tables())
    assert {table.stem for table in tables} == set(known_profiles()) - {"host"}
    for file, text in tables.items():
        assert file.read_text(encoding="utf-8") == text, f"{file.name}: run python -m devices.roofline"
        assert len(text) < 150_000


def value(device: str, name: str) -> float:
    """A fact by the last part of its path, of the core set that runs."""
    description = DESCRIPTIONS[device]
    for owner in (description.roofline, description.active_cores):
        if hasattr(owner, name):
            return float(getattr(owner, name).value)
    raise KeyError(name)


def cycles_per_s(device: str) -> float:
    return DESCRIPTIONS[device].threads * value(device, "clock_mhz") * 1e6


def test_an_arithmetic_bound_product_by_hand() -> None:
    macs_per_s = (
        cycles_per_s("imx8mplus") * value("imx8mplus", "float_macs_per_cycle") * value("imx8mplus", "float_efficiency")
    )
    by_hand_ms = 1500 * 384 * 1536 / macs_per_s * 1e3 + value("imx8mplus", "operation_overhead_us") / 1e3
    operation = Operation(kind="gemm", m=1500, k=384, n=1536)
    assert isclose(MODELS["imx8mplus"].latency_ms(operation), by_hand_ms, rel_tol=1e-12)


def test_a_memory_bound_product_by_hand() -> None:
    bytes_per_s = value("rpi5", "memory_bandwidth_gb_s") * 1e9
    by_hand_ms = 384 * 51864 * 4 / bytes_per_s * 1e3 + value("rpi5", "operation_overhead_us") / 1e3
    operation = Operation(kind="gemv", k=384, n=51864)
    assert isclose(MODELS["rpi5"].latency_ms(operation), by_hand_ms, rel_tol=1e-12)


def test_an_instruction_bound_product_by_hand() -> None:
    instructions_per_s = cycles_per_s("imx8mplus") * value("imx8mplus", "instructions_per_cycle")
    by_hand_ms = 384 * 51864 * 2.9 / instructions_per_s * 1e3 + value("imx8mplus", "operation_overhead_us") / 1e3
    operation = Operation(kind="gemv", k=384, n=51864, weight_bits=4, group_size=32)
    assert isclose(MODELS["imx8mplus"].latency_ms(operation), by_hand_ms, rel_tol=1e-12)


def test_attention_by_hand() -> None:
    # 2 x 6 heads x 1500^2 x 64 multiply-adds, 7 instructions a score, half of one per value split
    rate = cycles_per_s("rpi4") * value("rpi4", "float_macs_per_cycle") * value("rpi4", "float_efficiency")
    products_s = 2 * 6 * 1500**2 * 64 / (rate * value("rpi4", "attention_efficiency"))
    instructions = 6 * (7 * 1500**2 + 4 * 0.5 * 1500 * 64)
    rest_s = instructions / (cycles_per_s("rpi4") * value("rpi4", "instructions_per_cycle"))
    by_hand_ms = (products_s + rest_s) * 1e3 + value("rpi4", "operation_overhead_us") / 1e3
    operation = Operation(kind="attention", heads=6, m=1500, k=64, n=1500)
    assert isclose(MODELS["rpi4"].latency_ms(operation), by_hand_ms, rel_tol=1e-12)


def test_a_session_by_hand() -> None:
    # 26 values of 5,000 instructions on one thread
    per_s = value("rpi4", "clock_mhz") * 1e6 * value("rpi4", "instructions_per_cycle")
    by_hand_ms = value("rpi4", "session_overhead_us") / 1e3 + 26 * 5000 / per_s * 1e3
    assert isclose(MODELS["rpi4"].latency_ms(Operation(kind="session", n=26)), by_hand_ms, rel_tol=1e-12)


def test_weights_in_memory_by_hand() -> None:
    packed = Operation(kind="gemv", k=256, n=10, weight_bits=4, group_size=64)
    assert weight_bytes(packed) == 1280 + 4 * 10 * 5  # codes; a float32 scale and a zero point for each of 4 groups
    assert weight_bytes(replace(packed, weight_bits=32, group_size=0)) == 4 * 2560


@given(st.data(), names, st.sampled_from(["heads", "m", "k", "n"]), st.integers(0, 500))
def test_more_work_is_never_faster(data: st.DataObject, device: str, name: str, more: int) -> None:
    small = data.draw(st.sampled_from(OPERATIONS[device]))
    large = replace(small, **{name: getattr(small, name) + more})
    assert MODELS[device].latency_ms(large) >= MODELS[device].latency_ms(small) > 0


@pytest.mark.parametrize("device", ["imx8mplus", "rpi5"])
def test_prices_of_real_layers_are_those_of_the_model(device: str) -> None:
    """The table's rows are few; between them the predictor is off by less than it says that the model may be."""
    profile = load_profile(device)
    between = [
        Operation(kind=kind, m=m, k=k, n=n, weight_bits=bits, activation_bits=activation_bits, group_size=group)
        for kind, m in (("gemm", 700), ("gemm", 1234), ("gemv", 1))
        for k, n in ((384, 900), (448, 1536), (1024, 2000), (300, 384))
        for bits, activation_bits, group in ((32, 32, 0), (8, 32, 64), (4, 32, 32), (8, 8, 0), (4, 8, 128))
    ]
    between += [Operation(kind="attention", heads=5, m=750, k=64, n=750), Operation(kind="gelu", m=750, n=1100)]
    ratios = sorted(profile.latency(o).ms / MODELS[device].latency_ms(o) for o in between)
    assert ratios[0] > 0.85
    assert ratios[-1] < 1.15


@pytest.mark.parametrize("device", known_profiles())
def test_fewer_weight_bits_do_not_speed_up_an_encoder_product(device: str) -> None:
    """With float activations it is bound by float32 arithmetic, whatever the storage."""
    stored = [(2, 32), (4, 32), (8, 32), (32, 0)]
    times = [
        MODELS[device].latency_ms(Operation(kind="gemm", m=1500, k=384, n=1536, weight_bits=b, group_size=g))
        for b, g in stored
    ]
    assert times == sorted(times, reverse=True)
    assert times[1] / times[-1] < 1.03


def test_a_core_without_dot_products_gains_little_from_8_bit_weights_in_the_decoder() -> None:
    """5.8 instructions per weight (counted) keep a Cortex-A53 as busy as streaming four bytes does."""
    times = {
        bits: MODELS["imx8mplus"].latency_ms(
            Operation(kind="gemv", k=384, n=51864, weight_bits=bits, group_size=32 if bits < 32 else 0)
        )
        for bits in (4, 8, 32)
    }
    assert isclose(times[8] / times[4], 2, rel_tol=0.02)
    assert 0.6 < times[32] / times[8] < 1.7


def test_dot_products_speed_up_every_integer_kernel() -> None:
    for kernel, plain in GEMV_INSTRUCTIONS["neon"].items():
        assert GEMV_INSTRUCTIONS["neon_dot"][kernel] <= plain


@pytest.mark.parametrize("device", known_profiles())
def test_tables_hold_what_the_runtime_offers(device: str) -> None:
    runtime = DESCRIPTIONS[device].runtime
    held = {(o.kind, o.weight_bits, o.activation_bits, o.group_size > 0) for o in OPERATIONS[device]}
    assert {kind for kind, *_ in held} == set(OPERATION_KINDS) - set(STREAMS)
    for bits in (b for b in runtime.weight_bits if b <= 8):
        assert {("gemm", bits, 32, True), ("gemv", bits, 32, True)} <= held
    if 8 in runtime.weight_bits and 8 in runtime.activation_bits:
        assert {("gemm", 8, 8, False), ("gemv", 8, 8, False), ("dynamic_quantise", 32, 8, False)} <= held


def test_shapes_cover_whisper_tiny_to_large() -> None:
    def most(kind: str, name: str) -> int:
        return max(getattr(shape, name) for shape in SHAPES[kind])  # type: ignore[index]

    assert (most("gemm", "m"), most("gemm", "k"), most("gemv", "n")) == (1500, 5120, 51866)
    assert (most("convolution", "m"), most("convolution", "k")) == (3000, 3 * 1280)
    assert (most("attention", "heads"), most("attention", "n")) == (20, 1500)
    assert (most("cached_attention", "n"), most("cross_attention", "n")) == (448, 1500)


def test_cores_without_peaks_are_refused_in_one_line() -> None:
    description = DESCRIPTIONS["rpi4"]
    cores = description.active_cores.model_copy(update={"float_macs_per_cycle": None})
    unknown = description.model_copy(update={"core_sets": {"a72": cores}})
    with pytest.raises(InputError, match=r"core set 'a72' of .* needed to model latencies"):
        Roofline.of(unknown)
