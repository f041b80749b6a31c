"""Does an artifact run on the device's instruction set, and within 1 GB? Without a board, by emulation.

    python benchmarks/speed/aarch64.py --artifact DIR --audio CLIP.wav... [--cpu cortex-a53] [--json]
    python benchmarks/speed/aarch64.py --artifact DIR --audio CLIP.wav... --memory-limit-mb 1000 [--json]

The first runs `python -m runtime` twice, in an arm64 Debian under QEMU's user-mode emulator (`apt-get install
qemu-user`) and in this Python, and compares the texts: exit code 0 if they are the same, 1 if not. Cortex-A53 and A72
have no int8 dot product, so onnxruntime takes other kernels on them than on Cortex-A76. The emulator says whether
instructions exist and what they compute; its times say nothing about a board.

The second runs it once, in this Python, with so much address space and no more. What is resident is part of the
address space, so this is stricter than as much RAM. Tables that onnxruntime maps from the artifact's files count too.

The arm64 system is made when it is missing, in a minute and from Debian's and PyPI's mirrors only: Debian 12's
Python 3.11, and the aarch64 wheels of the onnxruntime and numpy installed here. It takes 190 MB under `--root`; nothing
is installed on this machine, and nothing is written into the checkout.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

from common.errors import InputError, WhisperfitError
from common.files import cache_folder

CHECKOUT = Path(__file__).parents[2]
EMULATOR = "qemu-aarch64"
WHEELS = ("onnxruntime", "numpy")
PACKAGES = ("python3.11-minimal", "libpython3.11-stdlib", "libstdc++6")
MIRROR = "http://deb.debian.org/debian"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
MANYLINUX = ("manylinux2014", "manylinux_2_17", "manylinux_2_27", "manylinux_2_28")
"""What Debian 12's glibc 2.36 can load; onnxruntime 1.32 needs the last."""
CORES = 4
NATIVE_TIMEOUT_S, EMULATED_TIMEOUT_S = 600, 3600
"""onnxruntime does not always notice that memory ran out: a thread that could not start is waited for."""

_BASE = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
CPUS = {
    "cortex-a53": ("0xd03", _BASE),
    "cortex-a72": ("0xd08", _BASE),
    "cortex-a76": ("0xd0b", f"{_BASE} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"),
}
"""Part number and features that Linux states in /proc/cpuinfo."""

# the limit is set in the process itself, before anything large is imported; the peak is that of the whole process
NATIVE = """
import resource, sys
limit_bytes = int(sys.argv.pop(1))
if limit_bytes:
    resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))
from runtime.__main__ import main
from runtime.memory import peak_rss_bytes
code = main()
if code == 0:
    print(peak_rss_bytes(), file=sys.stderr)
sys.exit(code)
"""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is transcribed, and on how many threads."""

    artifact: Path
    audio: tuple[Path, ...]
    threads: int = CORES

    @property
    def arguments(self) -> list[str]:
        """Those of `python -m runtime`."""
        files = [str(path.resolve()) for path in (self.artifact, *self.audio)]
        return [*files, "--format", "json", "--threads", str(self.threads)]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One run.

    `log_probabilities`: each segment's average per token, None for silence. Sizes in 10^6 bytes; the peak is only known
    natively, as an emulated process holds the emulator too.
    """

    machine: str
    texts: tuple[str, ...]
    log_probabilities: tuple[float | None, ...]
    seconds: float
    peak_rss_mb: float | None = None
    address_space_limit_mb: int | None = None


def run_native(job: Job, *, limit_mb: int | None = None) -> Outcome:
    """Transcribe in this Python, in a process of its own with at most `limit_mb` 10^6 bytes of address space.

    Raises InputError when the runtime does not succeed.
    """
    command = [sys.executable, "-B", "-c", NATIVE, str((limit_mb or 0) * 10**6), *job.arguments]
    where = f"within {limit_mb} MB" if limit_mb else "natively"
    printed, errors, seconds = _transcribe(command, job, where, NATIVE_TIMEOUT_S)
    return _outcome(
        f"{platform.machine()}, this machine",
        printed,
        seconds,
        peak_rss_mb=int(errors.split()[-1]) / 10**6,
        address_space_limit_mb=limit_mb,
    )


def run_emulated(job: Job, root: Path, cpu: str) -> Outcome:
    """Transcribe as a processor of CPUS does. Raises InputError when the runtime does not succeed, or crashes."""
    command = [*emulated_python(root, cpu), "-m", "runtime", *job.arguments]
    printed, _, seconds = _transcribe(command, job, f"on an emulated {cpu}", EMULATED_TIMEOUT_S)
    return _outcome(f"aarch64, emulated {cpu}", printed, seconds)


def emulated_python(root: Path, cpu: str) -> list[str]:
    """The command of the arm64 Python: no user's packages, no PYTHON* variables, no byte code written."""
    prefix = root / "cpus" / cpu
    return [EMULATOR, "-L", str(prefix), "-cpu", cpu, str(prefix / "usr/bin/python3.11"), "-E", "-s", "-B"]


def _transcribe(command: list[str], job: Job, where: str, timeout_s: float) -> tuple[str, str, float]:
    """What the command printed on stdout and stderr, and its seconds."""
    # numpy's BLAS reserves memory for every thread that it may use
    environment = os.environ | {"OPENBLAS_NUM_THREADS": str(job.threads)}
    started = perf_counter()
    try:
        done = subprocess.run(
            command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(f"the runtime did not end {where} in {timeout_s:g} s") from error
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(f"the runtime failed {where}, exit code {done.returncode}: {reason}")
    return done.stdout, done.stderr, perf_counter() - started


def _outcome(
    machine: str,
    printed: str,
    seconds: float,
    *,
    peak_rss_mb: float | None = None,
    address_space_limit_mb: int | None = None,
) -> Outcome:
    files = json.loads(printed)["files"]
    return Outcome(
        machine=machine,
        texts=tuple(file["text"] for file in files),
        log_probabilities=tuple(segment["avg_logprob"] for file in files for segment in file["segments"]),
        seconds=round(seconds, 1),
        peak_rss_mb=peak_rss_mb,
        address_space_limit_mb=address_space_limit_mb,
    )


def largest_difference(outcome: Outcome, other: Outcome) -> float | None:
    """Of the segments' average log-probabilities; None when the runs cut or dropped segments differently."""
    pairs = list(zip(outcome.log_probabilities, other.log_probabilities, strict=False))
    if len(outcome.log_probabilities) != len(other.log_probabilities):
        return None
    if any((a is None) != (b is None) for a, b in pairs):
        return None
    return max((abs(a - b) for a, b in pairs if a is not None and b is not None), default=0.0)


def default_root() -> Path:
    """Where the arm64 system lies unless `--root` says otherwise."""
    return cache_folder("aarch64") / "root"


def make_root(root: Path) -> None:
    """Unpack an arm64 Debian with Python, onnxruntime and numpy into `root`, which appears when it is complete.

    Nothing of it is run, so neither chroot nor binfmt nor root's rights are needed. Raises InputError when a tool is
    missing or a download fails.
    """
    _need("apt-get", "dpkg-deb", str(KEYRING))
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=".root.") as folder:
        made = Path(folder) / "root"
        made.mkdir()
        for archive in _debian_packages(Path(folder)):
            _run("unpack", ["dpkg-deb", "-x", str(archive), str(made)])
        wheels = [f"{name}=={version(name)}" for name in WHEELS]
        platforms = [f"--platform={tag}_aarch64" for tag in MANYLINUX]
        target = made / "usr/local/lib/python3.11/dist-packages"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--target", str(target)]
        _run("install the wheels", [*pip, "--only-binary=:all:", "--python-version=3.11", *platforms, *wheels])
        for cpu in CPUS:
            _describe_machine(made, cpu)
        made.rename(root)


def _need(*names: str) -> None:
    """Raise InputError unless there is a program or a file of each name."""
    missing = [name for name in names if shutil.which(name) is None and not Path(name).is_file()]
    if missing:
        raise InputError(
            f"{', '.join(missing)} missing: on Debian or Ubuntu, apt-get install qemu-user debian-archive-keyring"
        )


def _debian_packages(folder: Path) -> list[Path]:
    """Download PACKAGES and all they depend on, with a state of apt's own in `folder`, apart from the system's."""
    for name in ("lists/partial", "archives/partial"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()
    (folder / "sources.list").write_text(
        f"deb [arch=arm64 signed-by={KEYRING}] {MIRROR} bookworm main\n", encoding="utf-8"
    )
    settings = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "",
        "APT::Update::Error-Mode": "any",
        "APT::Update::Post-Invoke-Success": "",
        "Debug::NoLocking": "true",
        "Dir::Cache": f"{folder}",
        "Dir::Cache::archives": f"{folder}/archives",
        "Dir::Etc::sourcelist": f"{folder}/sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::State": f"{folder}",
        "Dir::State::status": f"{folder}/status",
    }
    apt = ["apt-get", "-q", *(f"-o{name}={value}" for name, value in settings.items())]
    _run("read Debian's index", [*apt, "update"])
    _run("download from Debian", [*apt, "install", "--yes", "--download-only", *PACKAGES])
    return sorted((folder / "archives").glob("*.deb"))


def _describe_machine(root: Path, cpu: str) -> None:
    """Make cpus/NAME, a view of the system with four cores of that kind, for the emulator's -L.

    Programs in QEMU's user mode read the host's /proc and /sys, from which onnxruntime would take an x86 for an
    arm64; it crashes over that.
    """
    view = root / "cpus" / cpu
    processors, system = view / "proc/cpuinfo", view / "sys/devices/system/cpu"
    for folder in (processors.parent, system):
        folder.mkdir(parents=True)
    for name in ("usr", "lib"):
        (view / name).symlink_to(Path("../..") / name)
    part, features = CPUS[cpu]
    processor = f"Features\t: {features}\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: {part}\n"
    processors.write_text("\n".join(f"processor\t: {core}\n{processor}" for core in range(CORES)), encoding="utf-8")
    for name in ("possible", "present", "online"):
        (system / name).write_text(f"0-{CORES - 1}\n", encoding="utf-8")
    (system / "kernel_max").write_text(f"{CORES - 1}\n", encoding="utf-8")


def _run(what: str, command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(f"could not {what} for the arm64 system: {reason}")


def show(outcome: Outcome) -> None:
    """Print one run for people to read."""
    facts = [outcome.machine, f"{outcome.seconds} s"]
    if outcome.peak_rss_mb is not None:
        facts.append(f"peak RSS {outcome.peak_rss_mb:.0f} MB")
    if outcome.address_space_limit_mb is not None:
        facts.append(f"address space limited to {outcome.address_space_limit_mb} MB")
    print("; ".join(facts))
    for text in outcome.texts:
        print(f"    {text}")


def limited(job: Job, limit_mb: int, *, as_json: bool) -> int:
    outcome = run_native(job, limit_mb=limit_mb)
    if as_json:
        print(json.dumps(asdict(outcome)))
    else:
        show(outcome)
    return 0


def compared(job: Job, root: Path, cpu: str, *, as_json: bool) -> int:
    _need(EMULATOR)
    if not root.is_dir():
        print(f"Making the arm64 system in {root}", file=sys.stderr)
        make_root(root)
    emulated, native = run_emulated(job, root, cpu), run_native(job)
    same, difference = emulated.texts == native.texts, largest_difference(emulated, native)
    if as_json:
        versions = {name: version(name) for name in WHEELS}
        facts = {"artifact": str(job.artifact), "audio": [str(path) for path in job.audio], "versions": versions}
        runs = {"emulated": asdict(emulated), "native": asdict(native)}
        print(json.dumps(facts | runs | {"same_texts": same, "log_probability_difference": difference}))
    else:
        show(emulated)
        show(native)
        probabilities = "not comparable" if difference is None else f"differ by at most {difference:.1e}"
        print(f"texts {'the same' if same else 'DIFFER'}; average log-probabilities {probabilities}")
    return 0 if same else 1


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Run an artifact on an emulated aarch64, or in limited memory.",
        epilog="See the docstring of this file and docs/running-on-a-board.md.",
    )
    parser.add_argument("--artifact", type=Path, required=True)
    parser.add_argument("--audio", type=Path, nargs="+", required=True, help="WAV files")
    parser.add_argument("--cpu", choices=sorted(CPUS), default="cortex-a53")
    parser.add_argument("--threads", type=int, default=CORES, help="default: four, as on the boards")
    parser.add_argument("--root", type=Path, help="the arm64 system; default: in the cache folder")
    parser.add_argument("--memory-limit-mb", type=int, help="no emulation: natively, in so much address space")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    job = Job(artifact=options.artifact, audio=tuple(options.audio), threads=options.threads)
    try:
        if options.memory_limit_mb is not None:
            return limited(job, options.memory_limit_mb, as_json=options.json)
        root = (options.root or default_root()).absolute()
        return compared(job, root, options.cpu, as_json=options.json)
    except WhisperfitError as error:
        print(f"aarch64: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
