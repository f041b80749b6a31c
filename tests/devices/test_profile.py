"""Profiles by name and by path: what they offer is priced, what is wrong in them is named."""

import pickle
import re
import time
from functools import cache
from importlib.resources import files
from math import exp, log
from pathlib import Path

import pytest

from common.errors import InputError, UnknownNameError
from common.files import sha256_of_text
from devices.host import physical_cores
from devices.interval import Z
from devices.operation import Operation
from devices.profile import DeviceProfile, known_profiles, load_profile
from devices.roofline import Roofline

RESOURCES = files("devices.profiles")
TOML = (RESOURCES / "imx8mplus.toml").read_text(encoding="utf-8")
CSV = (RESOURCES / "imx8mplus.csv").read_text(encoding="utf-8")
LOGITS = Operation(kind="gemv", k=384, n=51864, weight_bits=8, group_size=32)


@cache
def shipped(name: str) -> DeviceProfile:
    """Loaded once for what only reads."""
    return load_profile(name)


def write_board(folder: Path, *, toml: str = TOML, csv: str | None = CSV) -> str:
    path = folder / "board.toml"
    path.write_text(toml, encoding="utf-8")
    if csv is not None:
        path.with_suffix(".csv").write_text(csv, encoding="utf-8")
    return str(path)


def test_known_profiles() -> None:
    names = {"host", "imx8mplus", "imx8qm", "iot-camera", "phone-flagship", "phone-midrange", "rpi4", "rpi5"}
    of_chips = {"imx8mm", "imx93", "imx95", "jetson-orin-nano", "phone-sd865", "rk3566", "rk3588", "rpi-zero2w", "rpi3"}
    assert set(known_profiles()) == names | of_chips


@pytest.mark.parametrize("name", known_profiles())
def test_every_profile_loads_and_prices_what_its_runtime_offers(name: str) -> None:
    profile = shipped(name)
    assert profile.source == "estimated"
    if profile.active_power_w is not None:
        assert 0 < profile.idle_power_w < profile.active_power_w
    assert set(profile.runtime.weight_bits) <= {4, 8, 16}
    for bits in profile.runtime.weight_bits:
        is_integer = bits <= 8
        for rows in (1, 1500):
            operation = Operation(
                kind="gemv" if rows == 1 else "gemm",
                m=rows,
                k=384,
                n=1536,
                weight_bits=bits if is_integer else 32,
                group_size=64 if is_integer else 0,
            )
            assert profile.latency(operation).ms > 0


@pytest.mark.parametrize("name", known_profiles())
def test_modelled_tables_are_interpolated_close_to_the_model(name: str) -> None:
    """At shapes that are not in the table; the predictor does not know the roofline's bends."""
    profile = shipped(name)
    model = Roofline.of(profile.description)
    for operation in (
        Operation(kind="gemm", m=750, k=448, n=1344),
        Operation(kind="gemv", k=448, n=1344, weight_bits=4, group_size=32),
        Operation(kind="attention", heads=5, m=850, k=64, n=850),
        Operation(kind="layer_norm", m=750, n=512),
    ):
        found = profile.latency(operation)
        assert found.ms == pytest.approx(model.latency_ms(operation), rel=0.1)
        assert found.log_std < 0.1


def test_the_error_that_all_latencies_share_is_that_of_the_interval_factor() -> None:
    profile = shipped("imx8mplus")
    factor = profile.description.facts.interval_factor.value
    assert exp(Z * profile.encoder_log_std) == exp(Z * profile.decoder_log_std) == pytest.approx(factor)
    assert log(factor) > 0


def test_the_decoder_may_have_an_interval_of_its_own(tmp_path: Path) -> None:
    own = '\n[facts.decoder_interval_factor]\nvalue = 3.0\nunit = "factor"\nkind = "estimated"\nsource = "a test"\n'
    profile = load_profile(write_board(tmp_path, toml=TOML + own))
    assert exp(Z * profile.decoder_log_std) == pytest.approx(3.0)
    assert profile.encoder_log_std == shipped("imx8mplus").encoder_log_std


def test_the_camera_has_one_gigabyte() -> None:
    assert shipped("iot-camera").ram_available_mb < 1000


def test_digest_is_over_both_texts(tmp_path: Path) -> None:
    assert load_profile("imx8mplus").digest == sha256_of_text(TOML + CSV)
    assert load_profile(write_board(tmp_path)).digest == load_profile("imx8mplus").digest


def test_a_board_without_a_table_is_modelled(tmp_path: Path) -> None:
    # the committed table has six significant digits
    modelled = load_profile(write_board(tmp_path, csv=None)).latency(LOGITS).ms
    assert modelled == pytest.approx(shipped("imx8mplus").latency(LOGITS).ms, rel=1e-4)


def test_host_reads_this_machine() -> None:
    host = load_profile("host")
    assert host.description.threads == physical_cores()
    assert host.ram_available_mb < host.description.facts.ram_mb.value
    assert host.digest == load_profile("host").digest


def test_unknown_device() -> None:
    message = "unknown device 'imx8'. Did you mean 'imx8qm'? Known: host, imx8mm, "
    with pytest.raises(UnknownNameError, match=re.escape(message).replace("imx8qm", "imx8(qm|mplus)")):
        load_profile("imx8")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.toml cannot be read"):
        load_profile(str(tmp_path / "absent.toml"))


def test_measured_without_a_table(tmp_path: Path) -> None:
    toml = TOML.replace('source = "estimated"', 'source = "measured"', 1)
    with pytest.raises(InputError, match=r"board\.csv does not exist"):
        load_profile(write_board(tmp_path, toml=toml, csv=None))


def test_measured_with_a_table(tmp_path: Path) -> None:
    """The facts of the roofline are then not needed."""
    toml = TOML.replace('source = "estimated"', 'source = "measured"', 1)
    profile = load_profile(write_board(tmp_path, toml=toml[: toml.index("[roofline]")]))
    assert profile.source == "measured"
    assert profile.latency(LOGITS) == shipped("imx8mplus").latency(LOGITS)


def test_a_table_of_other_threads(tmp_path: Path) -> None:
    toml = TOML.replace("threads = { value = 4", "threads = { value = 2")
    with pytest.raises(InputError, match=r"board\.csv: no rows for 'gemm' .* on 2 threads of 'a53'"):
        load_profile(write_board(tmp_path, toml=toml))


def without_rows(start: str) -> str:
    return "".join(line for line in CSV.splitlines(keepends=True) if not re.match(start, line))


@pytest.mark.parametrize(
    ("start", "missing"),
    [
        (r"session,", "'session' with 32-bit weights and 32-bit activations"),
        (r"quantise,", "'quantise' with 32-bit weights and 8-bit activations"),
        (r"gemv,1,1,\d+,\d+,4,8,", "'gemv' with 4-bit weights in groups and 8-bit activations"),
    ],
)
def test_a_kernel_that_is_offered_but_not_in_the_table(tmp_path: Path, start: str, missing: str) -> None:
    path = write_board(tmp_path, csv=without_rows(start))
    with pytest.raises(InputError, match=rf"board\.csv: no rows for {missing} on 4 threads of 'a53', which the"):
        load_profile(path)


def test_a_broken_table_names_its_row(tmp_path: Path) -> None:
    lines = CSV.splitlines(keepends=True)
    with pytest.raises(InputError, match=r"board\.csv: row 6: 'gemm' .* is given twice"):
        load_profile(write_board(tmp_path, csv="".join([*lines[:5], lines[4], *lines[5:]])))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("ram_mb = {", "ram = {", r"facts\.ram_mb: Field required \(and 1 more\)"),
        ("value = 5905", "value = 0", r"facts\.ram_mb\.value: Input should be greater than 0"),
        ("value = 5905", "value = inf", r"facts\.ram_mb\.value: Input should be a finite number"),
        ("value = 5905", "value = 100", r"profile: facts\.ram_available_mb is more than facts\.ram_mb"),
        ('unit = "MHz"', 'unit = "GHz"', r"core_sets\.a53\.clock_mhz: the unit must be 'MHz', but got 'GHz'"),
        (
            "value = 0.16",
            "value = 16",
            r"roofline\.float_efficiency: the value must be from 0\.0001 to 1 fraction, but got 16; is it 0\.16\?",
        ),
        ("value = 1.8,", "value = 0.5,", r"facts\.interval_factor: the value must be at least 1"),
        ("threads = { value = 4", "threads = { value = 8", r"profile: execution\.threads \(8\) is more than the cores"),
        ("threads = { value = 4", "threads = { value = 1.5", r"execution\.threads: the value must be whole"),
        ('core_set = "a53"', 'core_set = "a72"', r"execution\.core_set 'a72' is not among core_sets: a53"),
        ('kind = "measured"', 'kind = "true"', r"kind: Input should be 'measured', 'derived' or 'estimated'"),
        ("[facts]", "[facts", "not valid TOML"),
    ],
)
def test_wrong_facts_are_named(tmp_path: Path, old: str, new: str, reason: str) -> None:
    assert old in TOML
    path = write_board(tmp_path, toml=TOML.replace(old, new, 1))
    with pytest.raises(InputError, match=rf"^{re.escape(path)}: .*{reason}") as caught:
        load_profile(path)
    assert "\n" not in str(caught.value)


def test_unsupported_precision_names_the_known_ones() -> None:
    operation = Operation(kind="gemm", m=100, k=384, n=384, weight_bits=3, group_size=32)
    with pytest.raises(InputError, match=r"3-bit weights in groups .* known weight/activation bits: 32/32, 4/32 in"):
        shipped("imx8mplus").latency(operation)


def test_without_rows_of_streams_nothing_is_added() -> None:
    """The model reads weights from memory whatever the cache."""
    assert shipped("rpi5").stream_extra_ms({Operation(kind="stream"): 200}, 10.0) == 0


def test_rows_of_streams_tell_what_a_step_takes_longer(tmp_path: Path) -> None:
    """Weights and caches, of the profile's threads and cores only; the decoder's factor is in the interval."""
    *_, threads, core_set, repeats, _, mean, std, least, source, tool = CSV.splitlines()[-1].split(",")
    csv = CSV
    for kind, megabytes, count, ms in (
        ("stream", 32, threads, 1.0),
        ("stream", 64, threads, 4.0),
        ("cache_stream", 32, threads, 1.0),
        ("cache_stream", 64, threads, 6.0),
        ("cache_stream", 64, int(threads) + 1, 600.0),
    ):
        row = [kind, 1, 1, 1, megabytes, 32, 32, 0, count, core_set, repeats, ms, mean, std, least, source, tool]
        csv += ",".join(map(str, row)) + "\n"
    factor = '\n[facts.decoder_factor]\nvalue = 0.5\nunit = "factor"\nkind = "estimated"\nsource = "a test"\n'
    plain, halved = (load_profile(write_board(tmp_path, toml=TOML + text, csv=csv)) for text in ("", factor))
    reads = {Operation(kind="stream"): 10.0, Operation(kind="cache_stream"): 2.0}
    assert plain.stream_extra_ms(reads, 100.0) == pytest.approx(10 * (4 / 64 - 1 / 32) + 2 * (6 / 64 - 1 / 32))
    weights = {Operation(kind="stream"): 1e-6}
    assert plain.stream_extra_ms(weights, 4.0) == pytest.approx(2 * halved.stream_extra_ms(weights, 5.0))


def test_a_profile_survives_a_trip_to_another_process() -> None:
    profile = shipped("rpi5")
    assert pickle.loads(pickle.dumps(profile)).latency(LOGITS) == profile.latency(LOGITS)


def test_what_is_remembered_is_what_would_be_computed() -> None:
    profile: DeviceProfile = load_profile("rpi5")
    first = profile.latency(LOGITS)
    assert profile.latency(LOGITS) is first
    assert load_profile("rpi5").latency(LOGITS) == first


def test_warm_prices_are_fast() -> None:
    """A hundred operations a recipe, a thousand recipes a second: under 10 us each, with room for slow machines."""
    profile = shipped("imx8mplus")
    shapes = [Operation(kind="gemm", m=m, k=384, n=1536) for m in range(2, 102)]
    for operation in shapes:
        profile.latency(operation)
    start = time.perf_counter()
    for _ in range(100):
        for operation in shapes:
            profile.latency(operation)
    assert (time.perf_counter() - start) / 10_000 < 10e-6
