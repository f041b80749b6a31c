"""Numbers of a profile that cannot be, and numbers that cannot be true together."""

import csv
import io
import re
from importlib.resources import files
from pathlib import Path

import pytest

from common.errors import InputError
from devices.facts import parse_description
from devices.profile import known_profiles, load_profile
from devices.table import COLUMNS

TOML = (files("devices.profiles") / "rpi4.toml").read_text(encoding="utf-8")
CSV = (files("devices.profiles") / "rpi4.csv").read_text(encoding="utf-8")


def changed(key: str, value: str) -> str:
    """The Raspberry Pi's profile with another value of a fact, or of a list of its runtime."""
    text, count = re.subn(rf"^({key} = (?:\{{ value = )?)(?:\[[^]]*\]|[\d.]+)", rf"\g<1>{value}", TOML, flags=re.M)
    assert count == 1
    return text


def written(folder: Path, toml: str, table: str | None) -> str:
    (folder / "board.toml").write_text(toml, encoding="utf-8")
    if table is not None:
        (folder / "board.csv").write_text(table, encoding="utf-8")
    return str(folder / "board.toml")


def scaled(factor: float) -> str:
    rows = list(csv.DictReader(io.StringIO(CSV)))
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row | {"median_ms": f"{float(row['median_ms']) * factor:.6g}"} for row in rows)
    return text.getvalue()


def without(**cells: str) -> str:
    """The table without the rows that have these cells."""
    lines = CSV.splitlines()
    kept = [line for line in csv.DictReader(lines) if any(line[name] != value for name, value in cells.items())]
    return "\n".join([lines[0], *(",".join(line.values()) for line in kept)]) + "\n"


@pytest.mark.parametrize(
    ("key", "value", "complaint"),  # regular expressions
    [
        ("clock_mhz", "1800000000", "core_sets.a72.clock_mhz: the value must be from 10 to 10000 MHz.*is it 1800?"),
        ("clock_mhz", "1.8", "core_sets.a72.clock_mhz: .*got 1.8; is it 1800?"),
        ("memory_bandwidth_gb_s", "3360", "roofline.memory_bandwidth_gb_s: .*0.05 to 1500 GB/s.*is it 3.36?"),
        ("memory_bandwidth_gb_s", "3360000000", "roofline.memory_bandwidth_gb_s: .*is it 3.36?"),
        ("ram_mb", "4", "facts.ram_mb: the value must be from 16 .*is it 4000?"),
        ("ram_mb", "4000000000", "facts.ram_mb: .*is it"),
        ("active_power_w", "50000", "facts.active_power_w: .*is it 50?"),
        ("last_level_cache_kb", "1073741824", "roofline.last_level_cache_kb: .*is it"),
        ("operation_overhead_us", "20000000", "roofline.operation_overhead_us: .*is it 20000?"),
        ("float_efficiency", "25", "roofline.float_efficiency: .*from 0.0001 to 1 fraction, but got 25; is it 0.25?"),
        ("instructions_per_cycle", "1500", "roofline.instructions_per_cycle: .*is it 1.5?"),
        ("float_macs_per_cycle", "7200000000", "core_sets.a72.float_macs_per_cycle: "),
        ("interval_factor", "0.7", "facts.interval_factor: the value must be at least 1"),
        ("weight_bits", "[5]", "runtime.weight_bits: 5 is none of 2, 4, 8, 16, 32"),
        ("weight_bits", "[3, 8]", "runtime.weight_bits: 3 is none of"),
        ("weight_bits", "[8, 8]", r"runtime.weight_bits: each may stand there once, but got \[8, 8\]"),
        ("embedding_bits", "[4, 7]", "runtime.embedding_bits: 7 is none of"),
        ("convolution_bits", "[1]", "runtime.convolution_bits: 1 is none of"),
        ("activation_bits", "[4, 32]", "runtime.activation_bits: 4 is none of 8, 16, 32"),
        ("group_sizes", "[8, 24, 512]", "runtime.group_sizes: 8 is none of 16, 32, 64, 128, 256"),
        ("group_sizes", "[32, 24]", "runtime.group_sizes: 24 is none of"),
        ("group_sizes", "[]", "runtime.group_sizes: "),
        ("channel_multiple", "0", "runtime.channel_multiple: .*greater than or equal to 1"),
    ],
)
def test_what_cannot_be_is_named_with_its_file_and_key(key, value, complaint):
    with pytest.raises(InputError, match=complaint.replace("?", r"\?")) as raised:
        parse_description(changed(key, value), file=Path("board.toml"))
    assert str(raised.value).startswith("board.toml: ")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("bits", ["[2, 4, 8, 16, 32]", "[2]", "[16]", "[32]"])
@pytest.mark.parametrize("sizes", ["[16]", "[256, 16]"])
def test_every_kernel_that_there_is_can_be_priced(bits, sizes, tmp_path):
    toml = changed("weight_bits", bits).replace("group_sizes = [16, 32, 64, 128]", f"group_sizes = {sizes}")
    assert load_profile(written(tmp_path, toml, None)).warnings == ()


@pytest.mark.parametrize("name", known_profiles())
def test_the_shipped_profiles_agree_with_themselves(name):
    assert load_profile(name).warnings == ()


def test_a_measured_profile_agrees_with_itself():
    assert load_profile(str(Path(__file__).parents[2] / "results" / "host-profile" / "host.toml")).warnings == ()


@pytest.mark.parametrize(
    ("factor", "unit"), [(1000, "microseconds"), (0.001, "seconds"), (1e6, "nanoseconds"), (100, "microseconds")]
)
def test_a_table_in_another_unit_is_doubted(factor, unit, tmp_path):
    warnings = load_profile(written(tmp_path, TOML, scaled(factor))).warnings
    word = "slower" if factor > 1 else "faster"
    said = f"the table is {max(factor, 1 / factor):.3g} times {word} than the profile's own facts say"
    assert any(warning.startswith(said) and f"are its times in {unit}, not ms?" in warning for warning in warnings)


@pytest.mark.parametrize(("factor", "unit"), [(1000, "microseconds"), (0.001, "seconds")])
def test_without_a_roofline_the_clock_tells(factor, unit, tmp_path):
    toml = TOML[: TOML.index("[roofline]")].replace('source = "estimated"', 'source = "measured"', 1)
    (warning,) = load_profile(written(tmp_path, toml, scaled(factor))).warnings
    assert warning.startswith("the table's fastest float32 product does ")
    assert warning.endswith(f"are its times in {unit}, not ms?")
    assert load_profile(written(tmp_path, toml, CSV)).warnings == ()


@pytest.mark.parametrize("factor", [0.5, 1, 3])
def test_a_table_that_is_merely_off_is_not_doubted(factor, tmp_path):
    assert load_profile(written(tmp_path, TOML, scaled(factor))).warnings == ()


def test_a_bandwidth_that_the_cores_cannot_ask_for_is_doubted(tmp_path):
    (warning,) = load_profile(written(tmp_path, changed("memory_bandwidth_gb_s", "1120"), None)).warnings
    assert "(1120 GB/s) would be 156 bytes a cycle for each core" in warning  # 1120e9 / (4 x 1.8e9)


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (
            {"op": "gemv", "weight_bits": "8", "activation_bits": "8", "group_size": "0"},
            "'gemv' with 8-bit weights and 8-bit activations",
        ),
        ({"op": "gemm", "weight_bits": "32"}, "'gemm' with 32-bit weights and 32-bit activations"),
        ({"op": "embedding", "weight_bits": "32"}, "'embedding' with 32-bit weights"),
        ({"op": "layer_norm"}, "'layer_norm' with 32-bit weights"),
    ],
)
def test_a_table_without_rows_that_a_search_asks_for_is_refused_before_it(cells, said, tmp_path):
    with pytest.raises(InputError, match=f"board.csv: no rows for {said}"):
        load_profile(written(tmp_path, TOML, without(**cells)))


def test_a_table_with_grouped_rows_only_is_refused(tmp_path):
    lines = CSV.splitlines()
    grouped = [
        line for line in csv.DictReader(lines) if line["group_size"] != "0" or line["op"] not in {"gemm", "gemv"}
    ]
    table = "\n".join([lines[0], *(",".join(line.values()) for line in grouped)]) + "\n"
    with pytest.raises(InputError, match="no rows for 'gemm' with 32-bit weights and 32-bit activations"):
        load_profile(written(tmp_path, TOML, table))
