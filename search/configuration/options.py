"""The options of a search, once: keys of its configuration, flags of its command, their ranges and their help."""

import re
import shlex
import shutil
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from evaluators.accuracy.normaliser_names import NormaliserChoice

RecoverChoice = Literal["auto", "off"]
EngineName = Literal["evolution", "steps", "optuna", "nni"]
SamplerName = Literal["tpe", "nsga2", "random", "evolution", "grid"]
_OF_OPTUNA: tuple[SamplerName, ...] = ("tpe", "nsga2", "random")
SAMPLERS: dict[EngineName, tuple[SamplerName, ...]] = {
    "evolution": _OF_OPTUNA,
    "steps": _OF_OPTUNA,
    "optuna": _OF_OPTUNA,
    "nni": ("tpe", "evolution", "random", "grid"),
}
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Hours = Annotated[Positive, Field(le=8784)]
Minutes = Annotated[float, Field(ge=0, le=60 * 8784, allow_inf_nan=False)]
Trials = Annotated[int, Field(ge=1, le=1_000_000)]
Patience = Annotated[int, Field(ge=1, le=1_000_000)]
Utterances = Annotated[int, Field(ge=1, le=100_000)]
CALIBRATION_UTTERANCES = 128
"""At most, unless a command says how many: docs/decisions/0028-as-much-calibration-speech-as-there-is.md."""
ThreadCount = Annotated[int, Field(ge=1, le=4096)]
WorkerCount = Annotated[int, Field(ge=0, le=256)]
LogFormat = Literal["text", "json"]
Port = Annotated[int, Field(ge=1, le=65535)]
Repeats = Annotated[int, Field(ge=1, le=10_000)]


def at_most_half(utterances: int, scored: int) -> int:
    """How many utterances recipes are fitted to, of a set of so many `scored` ones: what is fitted to cannot judge."""
    return min(utterances, -(-scored // 2))


def _as_compute(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,3})?|mps", text):
        raise PydanticCustomError("compute", "should be auto, cpu, cuda, cuda:N or mps")
    return text


ComputeChoice = Annotated[str, AfterValidator(_as_compute)]
"""Where torch computes; "device" is what a model is compressed for."""


def _as_command(text: str) -> str:
    try:
        program = next(iter(shlex.split(text)), "")
    except ValueError:  # a quotation that does not end
        program = ""
    if shutil.which(program) is None:
        raise PydanticCustomError("command", "should be a command that can be run")
    return text


class SearchOptions(BaseModel):
    """What a run can be told. `search.configuration.command_options` makes a flag of each field, in this order.

    `hours` is the whole run's time, set-up and confirmation included. `trials` counts scored trials: complete,
    stopped or failed. A new run settles `recover`, `recover_share` and `patience` (`SearchConfig.settled`); in a run
    from before they existed they are None, which is without.
    `latency_confidence`: the probability with which limits on time must hold; 0.5 is the median.
    `noise` is mixed into the search's and the confirm set's speech at `snr_db`, such as `20,10,clean`.
    Costs refer to one utterance of `reference_seconds` of speech and `reference_tokens` tokens. Who names a `sampler`
    and no `engine` wants that sampler alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Annotated[
        str,
        Field(
            min_length=1,
            description="A checkpoint, a Hugging Face or CTranslate2 directory, or a name such as tiny.en.",
        ),
    ]
    device: Annotated[str, Field(min_length=1, description="A device profile's name, or your own TOML.")]
    runtime: Annotated[
        str | None,
        Field(description="What runs the model there: onnxruntime or sherpa-onnx; default: what the profile names."),
    ] = None
    data: Annotated[Path, Field(description="Evaluation speech; default: the built-in sample.")] = Path("sample")
    wer_budget: Annotated[str, Field(description="+10% above the baseline, or 8.5% absolute.")] = "+10%"
    group_budget: Annotated[
        str | None,
        Field(description="The same for each group (language, speaker, length, noise); the worst counts."),
    ] = None
    min_language_accuracy: Annotated[
        Annotated[float, Field(gt=0, le=1)] | None,
        Field(description="Least share of the utterances whose language a multilingual model detects, such as 0.98."),
    ] = None
    hours: Annotated[
        Hours | None,
        Field(description="End after this time, confirmation included."),
    ] = None
    trials: Annotated[Trials | None, Field(description="End after this many scored trials.")] = None
    recover: Annotated[
        RecoverChoice | None,
        Field(description="auto or off: train the most promising recipes; default: auto from 2 hours, with evolution."),
    ] = None
    recover_share: Annotated[
        float | None, Field(gt=0, le=0.9, description="Of the run's time, for that training; default 0.4.")
    ] = None
    patience: Annotated[
        Patience | None,
        Field(description="End the search when its front stood still for so many recipes; default 600."),
    ] = None
    confirm: Annotated[
        Path | None, Field(description="Speech that the search never sees, to confirm the front on.")
    ] = None
    calibration: Annotated[
        Path | None, Field(description="Speech for importance and ranges; default: the search's.")
    ] = None
    calibration_utterances: Annotated[Utterances, Field(description="At most so many of them; default 128.")] = (
        CALIBRATION_UTTERANCES
    )
    unlabelled: Annotated[
        Path | None,
        Field(description="Recordings without transcripts, a folder or a manifest, to judge by divergence on too."),
    ] = None
    language: Annotated[str | None, Field(description="Language code where the speech set does not state it.")] = None
    skip_broken: Annotated[bool, Field(description="Go on without the speech set's broken lines.")] = False
    noise: Annotated[
        Path | None, Field(description="Mix this noise into the speech: a manifest, a folder, a file.")
    ] = None
    normaliser: Annotated[
        NormaliserChoice,
        Field(description="whisper (default), basic, none or no-diacritics: what is done to texts first."),
    ] = "whisper"
    snr_db: Annotated[
        Annotated[str, Field(coerce_numbers_to_str=True)] | None,
        Field(description="Signal-to-noise ratio; several, such as 20,10,clean, are shared out."),
    ] = None
    space: Annotated[
        str, Field(min_length=1, description="fine, coarse, or a TOML file of genes; a sampler's default is coarse.")
    ] = "fine"
    engine: Annotated[
        EngineName,
        Field(
            description="evolution (default), optuna or nni (a sampler alone), or steps (a sampler, and single steps)."
        ),
    ] = "evolution"
    sampler: Annotated[
        SamplerName, Field(description="tpe, nsga2 or random; with --engine nni: tpe, evolution, random or grid.")
    ] = "tpe"
    nni_port: Annotated[Port, Field(description="Of NNI's web portal, with --engine nni; default 8080.")] = 8080
    confidence: Annotated[
        float, Field(gt=0, lt=1, description="Least probability that the pick is within the WER budget; default 0.5.")
    ] = 0.5
    divergence_clips: Annotated[
        int, Field(ge=4, le=1000, description="Clips by which evolution judges recipes; default 32.")
    ] = 32
    widen: Annotated[
        bool, Field(description="Hear every second one in noise, in a room, faster, fainter or slower; default yes.")
    ] = True
    objective: Annotated[str, Field(description="Weights of size and FLOPs, such as 0.5,0.5.")] = "0.5,0.5"
    max_size_mb: Annotated[
        Annotated[Positive, Field(le=1e6)] | None, Field(description="Limit on the stored model's megabytes.")
    ] = None
    max_latency_ms: Annotated[
        Annotated[Positive, Field(le=3.6e6)] | None, Field(description="On the reference utterance's time.")
    ] = None
    max_rtf: Annotated[
        Annotated[Positive, Field(le=1000)] | None, Field(description="On its time over its length.")
    ] = None
    max_memory_mb: Annotated[
        Annotated[Positive, Field(le=1e8)] | None, Field(description="At most, and by default, what the device has.")
    ] = None
    max_occupancy: Annotated[
        Annotated[Positive, Field(le=1)] | None,
        Field(description="Share of all cores that speech without a pause may keep busy."),
    ] = None
    latency_confidence: Annotated[
        float,
        Field(
            gt=0, lt=1, description="Probability with which limits on time must hold; 0.5, the median, if not given."
        ),
    ] = 0.5
    reference_seconds: Annotated[
        float, Field(gt=0, le=30, description="Speech that latency and memory refer to; default 10.")
    ] = 10.0
    reference_tokens: Annotated[int, Field(ge=1, le=220, description="Its tokens; default 30.")] = 30
    seed: Annotated[int, Field(ge=0, lt=2**32, description="Of all that is drawn; default 0.")] = 0
    threads: Annotated[
        ThreadCount | None, Field(description="CPU threads; default: one per core that this process may use.")
    ] = None
    compute: Annotated[
        ComputeChoice,
        Field(description="Where torch computes: auto (default: a CUDA device, else the CPU), cpu, cuda, cuda:N, mps."),
    ] = "auto"
    workers: Annotated[
        WorkerCount | None,
        Field(
            description="Measure in so many processes of this machine, which share its threads; default: in this one."
        ),
    ] = None
    storage: Annotated[
        str | None,
        Field(description="Keep the study in a database, such as postgresql+psycopg://USER@HOST/DATABASE."),
    ] = None
    study: Annotated[
        str | None, Field(min_length=1, max_length=200, description="Its name in the storage; default: the folder's.")
    ] = None
    log_format: Annotated[
        LogFormat, Field(description="text or json: of what is told on stderr, and of the workers' logs.")
    ] = "text"
    on_end: Annotated[
        str | None, AfterValidator(_as_command), Field(description="A command that gets the summary as JSON on stdin.")
    ] = None

    @model_validator(mode="before")
    @classmethod
    def _with_engine(cls, values: dict[str, Any]) -> dict[str, Any]:
        return with_engine(values)


def with_engine(values: dict[str, Any]) -> dict[str, Any]:
    """Options, with the engine and the space that follow from the others where they are not named."""
    if "engine" not in values and "sampler" in values:
        values = values | {"engine": "optuna"}
    if values.get("engine", "evolution") != "evolution" and "space" not in values:
        values = values | {"space": "coarse"}
    return values
