"""`whisperfit recover`: a trial of a run made better by training, added to the run as a trial of its own."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import torch
from rich.console import Console

from common.errors import InputError, UnknownNameError
from compression.recovery import RECOVERY_METHODS, RecoveryMethod
from compression.training.checkpoint import Point
from compression.training.recovery import Limits
from compression.training.settings import TrainingSettings
from evaluators.speech_set import SpeechSet
from search.commands.report import write_all
from search.commands.search import INTERRUPTED_EXIT
from search.comparison import percent
from search.engines.memory import Memory
from search.engines.optuna_engine import OptunaEngine
from search.findings import find_trial, read_outcome
from search.folder import RunFolder
from search.interrupts import catching_interrupts
from search.progress import Progress
from search.recovery import Listener, Recovered, RecoveryPlan, add_trial, check_apart, improve, subject_of
from search.run import End, Run
from search.session import Session, load_speech, reopen_session
from search.trial import Trial


@dataclass(frozen=True, kw_only=True)
class RecoverOptions:
    """The command's options; None: the recommended trial, the run's calibration speech, no limit of time, defaults."""

    run: Path
    trial: str | None
    method: str
    hours: float | None
    speech: Path | None
    training: Path | None
    torch_device: str | None


def run_recover(options: RecoverOptions, *, as_json: bool) -> None:
    """Train, score, confirm, export, and print what came of it."""
    console = Console(stderr=True)
    folder = RunFolder.open(options.run)
    settings = _settings(options)
    memory = Memory(folder.study_file)
    trial = find_trial(read_outcome(memory), options.trial)
    session = reopen_session(folder, console.print)
    method: RecoveryMethod = options.method  # type: ignore[assignment] # checked by _settings
    recovery = RecoveryPlan(method=method, settings=settings, speech=_speech(options, session))
    check_apart(recovery.speech, session)
    checkpoint = folder.recovered / f"{trial.recipe.id}-{method}.checkpoint"
    recovered = _improved(options, session, trial, recovery, checkpoint, console)
    if recovered is None:
        goes_on = (
            "begins anew, since a reconstruction keeps nothing" if method == "reconstruct" else "goes on from here"
        )
        sys.stderr.write(f"Interrupted; the same command {goes_on}\n")
        sys.exit(INTERRUPTED_EXIT)
    console.print("Scoring the recovered recipe", highlight=False)
    better = add_trial(session, memory, trial.recipe, recovery, recovered)
    checkpoint.unlink(missing_ok=True)
    _finish(session, memory, folder, console)
    if as_json:
        print(json.dumps(_values(trial, better, recovered)))
    else:
        print(_line(trial, better))


def _settings(options: RecoverOptions) -> TrainingSettings:
    if options.method not in RECOVERY_METHODS:
        raise UnknownNameError("method", options.method, RECOVERY_METHODS)
    if options.hours is not None and not options.hours > 0:
        raise InputError(f"--hours must be above 0, but got {options.hours:g}")
    settings = TrainingSettings.read(options.training, torch_device=options.torch_device)
    if settings.torch_device == "cuda" and not torch.cuda.is_available():
        raise InputError("--torch-device cuda: this torch finds no CUDA device; train on the cpu")
    if options.method != "reconstruct" and options.hours is None and settings.steps is None:
        raise InputError("a training needs an end: give --hours, or steps in --training FILE.toml")
    return settings


def _speech(options: RecoverOptions, session: Session) -> SpeechSet:
    config = session.config
    path = options.speech or config.calibration
    if path is None:
        raise InputError("this run has no calibration speech of its own to train on: give --speech MANIFEST")
    return load_speech(path, session.model, language=config.language, skip_broken=config.skip_broken)


def _improved(  # noqa: PLR0913, PLR0917 - one training
    options: RecoverOptions,
    session: Session,
    trial: Trial,
    recovery: RecoveryPlan,
    checkpoint: Path,
    console: Console,
) -> Recovered | None:
    interrupted: list[bool] = []

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False)

    def interrupt() -> None:
        interrupted.append(True)
        say("Interrupted: finishing the step in flight; Ctrl-C again drops it.")

    seconds = None if options.hours is None else 3600 * options.hours
    limits = Limits(seconds=seconds, clock=monotonic, should_stop=lambda: bool(interrupted))
    say(f"Recovering trial {trial.number} by {recovery.method}: {trial.recipe.summary()}")
    with catching_interrupts(interrupt):
        listener = Listener(say=say, watch=lambda point: say(progress_line(point)))
        return improve(subject_of(session, trial.recipe), recovery, limits, checkpoint, listener)


def progress_line(point: Point) -> str:
    """One evaluation of a training."""
    trained = "-" if point.training_loss is None else f"{point.training_loss:.4f}"
    return (
        f"step {point.step:>6}  {point.seconds / 60:6.1f} min  rate {point.learning_rate:.1e}  "
        f"loss {trained:>7}, held out {point.held_out_loss:.4f}"
    )


def _finish(session: Session, memory: Memory, folder: RunFolder, console: Console) -> None:
    """Confirm and export what is on the front now, and write the run's files again."""
    engine = OptunaEngine(memory, session.space, sampler=session.config.sampler, seed=session.config.seed)
    with Progress(console, End(seconds=None, trials=None)) as shown:
        run = Run(session, memory, engine, clock=monotonic, started=monotonic(), watcher=shown)
        finished = run.confirm() and run.export(folder.models)
    write_all(folder, memory, as_json=False)
    if not finished:
        sys.stderr.write(f"Interrupted; go on with: whisperfit resume {folder.path}\n")
        sys.exit(INTERRUPTED_EXIT)


def _wer(trial: Trial) -> str:
    if trial.accuracy is None:
        return f"no WER ({trial.state}: {trial.note})"
    suffix = "" if trial.state == "complete" else f" ({trial.note})"
    return f"WER {percent(trial.accuracy.wer)}{suffix}"


def _line(before: Trial, after: Trial) -> str:
    return f"trial {before.number}: {_wer(before)} -> trial {after.number}: {_wer(after)}, recipe {after.recipe.id}"


def _values(before: Trial, after: Trial, recovered: Recovered) -> dict[str, object]:
    training = recovered.training
    return {
        "from_trial": before.number,
        "from_wer": before.accuracy and before.accuracy.wer,
        "trial": after.number,
        "recipe_id": after.recipe.id,
        "method": after.recipe.recovery and after.recipe.recovery.method,
        "state": after.state,
        "feasible": after.feasible,
        "wer": after.accuracy and after.accuracy.wer,
        "note": after.note,
        "steps": training and training.steps,
        "seconds": training and training.seconds,
        "ended": training and training.ended,
    }
