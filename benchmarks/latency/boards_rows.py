"""Rows of measured latencies of Whisper, read liberally: which chip, runtime, model and stage each one is about."""

import csv
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import ceil, isfinite
from pathlib import Path

from boards_chips import Chip, find_chip

from common.errors import InputError

COLUMNS = ("device", "soc", "cores_used", "threads", "runtime", "model", "precision", "stage", "latency_ms", "source")

WINDOW_S = 30.0
TOKENS_PER_SECOND = 2.5
"""Of ordinary speech, punctuation included: about 150 words a minute."""
JFK_TOKENS = 27
"""Of whisper.cpp's jfk.wav, 11 s."""
DEFAULT_AUDIO_S = 10.0
PHRASE_S = 5.5
"""The mean of phrases of 1 to 10 s."""
BLOCKED_SINCE = 2023.6
"""whisper.cpp multiplies in blocks since ggml's broadcasting product (July 2023; in whisper.cpp by version 1.5)."""
DEFAULT_YEAR = 2024.0


@dataclass(frozen=True, kw_only=True)
class Case:
    """A row that can be predicted.

    `family`: of the runtime. `weights`: bits per weight as stored. `blocked`: whether a whisper.cpp multiplies in
    blocks. `windows`: runs of the encoder; `window_s`: seconds in each; `tokens`: runs of the decoder; `end_to_end`:
    with reading, log-mel and start; `per_s`: seconds of audio by which the time is divided, 1 unless it is a real-time
    factor.
    `assumed`: what the row does not say.
    """

    row: Mapping[str, str]
    chip: Chip
    threads: int
    family: str
    weights: float
    blocked: bool
    debug: bool
    model: str
    windows: int
    window_s: float
    tokens: float
    end_to_end: bool
    per_s: float
    assumed: tuple[str, ...] = field(default=())

    @property
    def measured_ms(self) -> float:
        return float(self.row["latency_ms"])

    @property
    def stage(self) -> str:
        if self.end_to_end:
            return "end-to-end"
        return "encoder" if self.windows else "decoder"


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A row that is not predicted, and why."""

    row: Mapping[str, str]
    reason: str


def read_rows(file: Path) -> list[dict[str, str]]:
    """Raises InputError for a file that cannot be read or lacks a column."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            reader = csv.DictReader(text)
            missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
            if missing:
                raise InputError(f"{file}: no column {', '.join(missing)}; needed: {','.join(COLUMNS)}")
            return [{column: (row.get(column) or "").strip() for column in COLUMNS} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file} cannot be read: {error}") from error


def is_whisper(row: Mapping[str, str]) -> bool:
    """Rows of Whisper itself: the model says so, or names a size and the runtime is one for Whisper."""
    if "whisper" in row["model"].lower() or "distil-" in row["model"].lower():
        return True
    size = re.match(r"(tiny|base|small|medium|large|turbo)\b", row["model"].lower())
    return bool(size) and "whisper" in f"{row['runtime']} {row['source']}".lower()


def read_case(row: Mapping[str, str]) -> Case | Refused:
    """What a row is about; never an exception."""
    reason = _not_modelled(row)
    if reason:
        return Refused(row=row, reason=reason)
    chip = find_chip(row["device"], row["soc"], row["cores_used"])
    if chip is None:
        return Refused(row=row, reason="unknown core: neither SoC nor cores are stated")
    assumed: list[str] = []
    work = _stage(row, assumed)
    if work is None:
        return Refused(row=row, reason=f"not a stage of inference: {row['stage']}")
    family = runtime_family(row)
    return Case(
        row=row,
        chip=chip,
        threads=_threads(row, chip, assumed),
        family=family,
        weights=_weight_bits(row, family),
        blocked=_year(row) >= BLOCKED_SINCE,
        debug=bool(re.search(r"debug|unoptimi[sz]ed", row["runtime"], re.IGNORECASE)),
        model=_model(row, assumed),
        windows=work.windows,
        window_s=work.window_s,
        tokens=work.tokens,
        end_to_end=work.end_to_end,
        per_s=work.per_s,
        assumed=tuple(assumed),
    )


_ACCELERATOR = re.compile(
    r"\b(npu|gpu|dsp|hexagon|hailo|rknn|rknpu|qnn|htp|cuda|tensorrt|trt|vulkan|opencl|metal|ane|core ?ml|edge ?tpu"
    r"|ethos|neutron|vx delegate|nnapi|mali|adreno)\b|precompiled_qnn|qnn_context",
    re.IGNORECASE,
)


def _not_modelled(row: Mapping[str, str]) -> str | None:
    try:
        latency_ms = float(row["latency_ms"])
    except ValueError:
        return f"latency_ms is not a number: {row['latency_ms']!r}"
    if not isfinite(latency_ms) or latency_ms <= 0:
        return f"latency_ms must be finite and positive: {row['latency_ms']}"
    where = f"{row['cores_used']} {row['runtime']}"
    if found := _ACCELERATOR.search(where):
        return f"not modelled: {found.group()} is no CPU"
    if "moonshine" in row["model"].lower():
        return "not Whisper: Moonshine"
    return None


_FAMILIES: tuple[tuple[str, str], ...] = (
    ("whisper.cpp BLAS", r"(whisper\.?cpp|ggml).*blas"),
    ("whisper.cpp", r"whisper\.?cpp|ggml|whisperfile|llamafile|pywhispercpp|whisper-rs|wyoming-whisper-cpp"),
    ("CTranslate2", r"faster[- ]?whisper|ctranslate2?|ct2|whisperx|wyoming"),
    ("TFLite", r"tflite|tf ?lite|litert|xnnpack|tensorflow"),
    ("ONNX Runtime", r"onnx|sherpa(?!-ncnn)|\bort\b|eiq|transformers\.?js|optimum"),
    ("ncnn", r"ncnn|mnn"),
    ("PyTorch", r"torch|openai|transformers|hugging"),
)


def runtime_family(row: Mapping[str, str]) -> str:
    for text in (row["runtime"], row["source"]):
        for family, pattern in _FAMILIES:
            if re.search(pattern, text, re.IGNORECASE):
                return family
    return "other"


_PRECISIONS: tuple[tuple[str, float], ...] = (
    (r"q8|int8|w8|i8\b|8[- ]?bit|uint8|quant", 8.5),
    (r"q6", 6.6),
    (r"q5", 5.5),
    (r"q4|int4|w4|4[- ]?bit", 4.5),
    (r"q3", 3.4),
    (r"q2", 2.6),
    (r"fp16|f16|float16|half", 16),
    (r"fp32|f32|float", 32),
)
_USUAL_BITS = {"whisper.cpp": 16.0, "whisper.cpp BLAS": 16.0, "CTranslate2": 32.0, "TFLite": 8.5, "ncnn": 16.0}
"""CTranslate2 widens float16 files to float32 on a CPU unless it is told otherwise. Published TFLite files of Whisper
are dynamic-range int8. All others: float32."""


def _weight_bits(row: Mapping[str, str], family: str) -> float:
    """Of stored weights, scales included; where the row does not say, what the runtime's users usually take."""
    for text in (row["precision"], row["model"], row["runtime"]):
        for pattern, bits in _PRECISIONS:
            if re.search(pattern, text, re.IGNORECASE):
                return bits
    return _USUAL_BITS.get(family, 32.0)


_SIZE = re.compile(
    r"\b(tiny|base|small|medium|large|turbo)(?:[-_. ]?(v[123]))?([-_. ]?turbo)?([-_. ]en\b)?", re.IGNORECASE
)


def _model(row: Mapping[str, str], assumed: list[str]) -> str:
    """One of OpenAI's names; base.en, whisper.cpp's default, where the size is not stated."""
    text = row["model"]
    found = _SIZE.search(text) or _SIZE.search(row["runtime"])
    if found is None:
        assumed.append("model size not stated: base taken")
        return "base"
    size, version, turbo, english = (part.lower() if part else "" for part in found.groups())
    if turbo or size == "turbo":
        return "large-v3-turbo"
    if size == "large":
        return f"large-{version}" if version else "large-v2"
    return f"{size}.en" if english else size


def _threads(row: Mapping[str, str], chip: Chip, assumed: list[str]) -> int:
    """As stated; else four, which is what most runtimes start at, or all cores where there are fewer."""
    found = re.match(r"\s*(\d+)", row["threads"])
    if found and int(found.group(1)) > 0:
        return min(int(found.group(1)), chip.core_count)
    if chip.core_count > 4:
        assumed.append("threads not stated: 4 taken")
    return min(4, chip.core_count)


_ISSUES = (
    (1, 2022.75),
    (300, 2022.95),
    (518, 2023.15),
    (970, 2023.4),
    (1500, 2023.87),
    (2000, 2024.22),
    (3000, 2025.27),
)
"""whisper.cpp's issues and when they were opened, in years."""


_DATES: tuple[tuple[str, Callable[[re.Match[str]], float]], ...] = (
    (r"\b(20[12]\d)-(\d\d)", lambda found: int(found[1]) + (int(found[2]) - 0.5) / 12),
    (r"\b(\d\d)/(20[12]\d)\b", lambda found: int(found[2]) + (int(found[1]) - 0.5) / 12),
    (r"whisper\.?cpp v?1\.(\d)\b", lambda found: 2022.8 + 0.2 * int(found[1])),
    (r"fquirin/speech-recognition-experiments", lambda _: 2023.1),  # a page of results that has no dates
    (r"\b(20[12]\d)\b", lambda found: int(found[1]) + 0.5),
    (r"issue #89\b", lambda _: 2023.0),  # open since October 2022
    (r"whisper\.cpp (?:issue|PR|discussion) #(\d+)", lambda found: _opened(int(found[1]))),
)


def _opened(issue: int) -> float:
    return [year for number, year in _ISSUES if number <= max(issue, 1)][-1]


def _year(row: Mapping[str, str]) -> float:
    """When the build was made, as far as runtime and source say."""
    text = f"{row['runtime']} {row['source']}"
    for pattern, year in _DATES:
        if found := re.search(pattern, text, re.IGNORECASE):
            return year(found)
    return DEFAULT_YEAR


@dataclass(frozen=True, kw_only=True)
class _Work:
    windows: int
    tokens: float
    end_to_end: bool
    window_s: float = WINDOW_S
    per_s: float = 1.0


_SECONDS = re.compile(
    r"(\d+(?:\.\d+)?)\s*-?\s*(ms|milliseconds?|s\b|sec\b|secs\b|seconds?|min\b|mins\b|minutes?)", re.IGNORECASE
)
_NAMED_CLIPS = {"jfk": 11.0}


def audio_seconds(text: str) -> float | None:
    """The length of audio that a stage names, in seconds."""
    for name, seconds in _NAMED_CLIPS.items():
        if name in text.lower():
            return seconds
    found = _SECONDS.search(text)
    if found is None:
        return None
    value, unit = float(found.group(1)), found.group(2).lower()
    seconds = value / 1000 if unit.startswith(("ms", "milli")) else value * 60 if unit.startswith("min") else value
    return seconds or None


def _encoder(_text: str, _assumed: list[str]) -> _Work:
    return _Work(windows=1, tokens=0, end_to_end=False)


def _token(_text: str, _assumed: list[str]) -> _Work:
    return _Work(windows=0, tokens=1, end_to_end=False)


def _decode_column(_text: str, assumed: list[str]) -> _Work:
    assumed.append(f"token count not stated: {JFK_TOKENS} taken, as jfk.wav has")
    return _Work(windows=0, tokens=JFK_TOKENS, end_to_end=False)


def _utterance(seconds: float) -> _Work:
    """Windows of 30 s, whatever the audio; decoding stops where the speech does."""
    tokens = JFK_TOKENS if seconds == _NAMED_CLIPS["jfk"] else 2 + TOKENS_PER_SECOND * seconds
    return _Work(windows=max(1, ceil(seconds / WINDOW_S)), tokens=tokens, end_to_end=True)


def _streaming(text: str, _assumed: list[str]) -> _Work:
    """A window as long as the speech."""
    seconds = audio_seconds(text) or PHRASE_S
    return _Work(windows=1, tokens=2 + TOKENS_PER_SECOND * seconds, end_to_end=True, window_s=min(seconds, WINDOW_S))


def _phrase(_text: str, assumed: list[str]) -> _Work:
    assumed.append(f"phrases of {PHRASE_S:g} s on average")
    return _utterance(PHRASE_S)


def _whole_graph(_text: str, assumed: list[str]) -> _Work:
    assumed.append(f"token count not stated: {JFK_TOKENS} taken")
    return _Work(windows=1, tokens=JFK_TOKENS, end_to_end=True)


def _end_to_end(text: str, assumed: list[str]) -> _Work:
    seconds = audio_seconds(text)
    if seconds is None:
        assumed.append(f"length of audio not stated: {DEFAULT_AUDIO_S:g} s taken")
    return _utterance(seconds or DEFAULT_AUDIO_S)


_STAGES: tuple[tuple[str, Callable[[str, list[str]], _Work]], ...] = (
    (r"decod\w*\W+(per|/|1|one|single)\W*(token|step)|per[- ]token|per step|/ ?tok|decoder step|text.?gen", _token),
    (r"dec(ode|oder)?\W*(column|time|total)|\"decode\"|^dec(ode|oder)?\.?$", _decode_column),
    (r"enc(oder?|ode time|oding)?\b", _encoder),
    (r"after (the )?end of|stream", _streaming),
    (r"per phrase|phrases|response latency", _phrase),
    (r"whole (graph|model)|first inference|full generate", _whole_graph),
    (r"", _end_to_end),
)


def _stage(row: Mapping[str, str], assumed: list[str]) -> _Work | None:
    text = row["stage"].lower()
    if re.search(r"\bload|memory|\bmel\b|warm.?up only|prompt per token|\bram\b", text):
        return None
    if "encoder" in text and re.search(r"\+|decod", text):
        return _end_to_end(text, assumed)
    work = next(make(text, assumed) for pattern, make in _STAGES if re.search(pattern, text))
    is_factor = re.search(r"\brtf\b|real.?time factor|per second of audio", text) and "duration" not in text
    return replace(work, per_s=audio_seconds(text) or DEFAULT_AUDIO_S) if is_factor else work
