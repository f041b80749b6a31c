import pickle
import re
import time
from importlib.resources import files
from pathlib import Path

import pytest

from common.errors import InputError, UnknownNameError
from common.files import sha256_of_text
from devices.energy import energy_mj
from devices.host import physical_cores
from devices.operation import Operation
from devices.profile import known_profiles, load_profile

RESOURCES = files("devices.profiles")
TOML = (RESOURCES / "imx8mplus.toml").read_text(encoding="utf-8")
CSV = (RESOURCES / "imx8mplus.csv").read_text(encoding="utf-8")
LOGITS = Operation(kind="linear", k=384, n=51864, weight_bits=8)


def write_board(folder: Path, *, toml: str = TOML, csv: str | None = CSV) -> str:
    path = folder / "board.toml"
    path.write_text(toml, encoding="utf-8")
    if csv is not None:
        path.with_suffix(".csv").write_text(csv, encoding="utf-8")
    return str(path)


def test_known_profiles() -> None:
    names = {"host", "imx8mplus", "imx8qm", "iot-camera", "phone-flagship", "phone-midrange", "rpi4", "rpi5"}
    assert set(known_profiles()) == names


@pytest.mark.parametrize("name", known_profiles())
def test_every_profile_loads_and_prices_what_its_runtime_offers(name: str) -> None:
    profile = load_profile(name)
    assert profile.source == "estimated"
    assert 0 < profile.idle_power_w < profile.active_power_w
    assert set(profile.runtime.weight_bits) <= {4, 8, 16}
    for weight_bits in (*profile.runtime.weight_bits, 32):
        for activation_bits in profile.runtime.activation_bits:
            operation = Operation(
                kind="linear",
                m=1500,
                k=384,
                n=1536,
                weight_bits=weight_bits,
                activation_bits=activation_bits,
                group_size=32,
            )
            latency = profile.latency(operation)
            factor = profile.description.facts.interval_factor.value
            assert latency.low_ms * factor == pytest.approx(latency.mean_ms)
            assert latency.high_ms / factor == pytest.approx(latency.mean_ms)


def test_the_camera_has_one_gigabyte() -> None:
    assert load_profile("iot-camera").ram_available_mb < 1000


def test_digest_is_over_both_texts(tmp_path: Path) -> None:
    assert load_profile("imx8mplus").digest == sha256_of_text(TOML + CSV)
    assert load_profile(write_board(tmp_path)).digest == load_profile("imx8mplus").digest


def test_a_board_without_a_table_is_modelled(tmp_path: Path) -> None:
    # the committed table has six significant digits
    modelled = load_profile(write_board(tmp_path, csv=None)).latency(LOGITS).mean_ms
    assert modelled == pytest.approx(load_profile("imx8mplus").latency(LOGITS).mean_ms, rel=1e-5)


def test_host_reads_this_machine() -> None:
    host = load_profile("host")
    assert host.description.threads == physical_cores()
    assert host.ram_available_mb < host.description.facts.ram_mb.value
    assert host.digest == load_profile("host").digest


def test_unknown_device() -> None:
    message = "unknown device 'imx8'. Did you mean 'imx8qm'? Known: host, imx8mplus, "
    with pytest.raises(UnknownNameError, match=re.escape(message).replace("imx8qm", "imx8(qm|mplus)")):
        load_profile("imx8")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.toml cannot be read"):
        load_profile(str(tmp_path / "absent.toml"))


def test_measured_without_a_table(tmp_path: Path) -> None:
    toml = TOML.replace('source = "estimated"', 'source = "measured"', 1)
    with pytest.raises(InputError, match=r"board\.csv does not exist"):
        load_profile(write_board(tmp_path, toml=toml, csv=None))


def test_a_table_of_other_threads(tmp_path: Path) -> None:
    toml = TOML.replace("threads = { value = 4", "threads = { value = 2")
    with pytest.raises(InputError, match=r"board\.csv: no rows for linear .* on 2 threads of 'a53'"):
        load_profile(write_board(tmp_path, toml=toml))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("ram_mb = {", "ram = {", r"facts\.ram_mb: Field required \(and 1 more\)"),
        ("value = 5905", "value = 0", r"facts\.ram_mb\.value: Input should be greater than 0"),
        ("value = 5905", "value = inf", r"facts\.ram_mb\.value: Input should be a finite number"),
        ("value = 5905", "value = 100", r"profile: facts\.ram_available_mb is more than facts\.ram_mb"),
        ('unit = "MHz"', 'unit = "GHz"', r"core_sets\.a53\.clock_mhz: the unit must be 'MHz', but got 'GHz'"),
        ("value = 0.22", "value = 22", r"roofline\.float_efficiency: the value must be at most 1"),
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


def test_unsupported_precision() -> None:
    with pytest.raises(InputError, match="3-bit weights"):
        load_profile("imx8mplus").latency(Operation(kind="linear", k=384, n=384, weight_bits=3))


def test_a_profile_survives_a_trip_to_another_process() -> None:
    profile = load_profile("rpi5")
    assert pickle.loads(pickle.dumps(profile)).latency(LOGITS) == profile.latency(LOGITS)


def test_warm_prices_are_fast() -> None:
    """A hundred operations a recipe, a thousand recipes a second: under 10 us each, with room for slow machines."""
    profile = load_profile("imx8mplus")
    shapes = [Operation(kind="linear", m=m, k=384, n=1536) for m in range(1, 101)]
    for operation in shapes:
        profile.latency(operation)
    start = time.perf_counter()
    for _ in range(100):
        for operation in shapes:
            profile.latency(operation)
    assert (time.perf_counter() - start) / 10_000 < 10e-6


def test_energy() -> None:
    assert energy_mj(latency_ms=1500, power_w=4) == 6000  # 1.5 s at 4 W are 6 J
