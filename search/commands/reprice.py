"""`whisperfit reprice`: the front, pick and report of a run on another device, or for another question."""

import os
import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tomli_w

from common.errors import InputError
from common.files import sha256_of_file, write_text_whole
from devices.profile import DeviceProfile, load_profile
from search.commands.report import NO_RECIPE_EXIT, write_outcome
from search.configuration.config import SearchConfig
from search.limits.verdict import lacks_languages
from search.records.folder import RunFolder, processor
from search.records.run_records import RunFacts, budgets_of, find_outcome, load_facts
from search.records.study_store import StudyStore
from search.report.result_files import ResultFiles
from search.reprice import Target, reprice
from search.trial import Trial

ORIGIN = "reprice.toml"
"""Marks a folder that this command wrote."""


def reprice_run(run: Path, *, out: Path | None, flags: Mapping[str, Any], as_json: bool) -> None:
    """Write what the run's trials are on another device. Neither the model nor the speech is needed.

    `flags`: whatever of the run's device, budget, objective, confidence and limits is to be different; at least one.
    """
    if not flags:
        raise InputError("say what is to be different: --device, --wer-budget, --objective, --confidence or a limit")
    folder = RunFolder.open(run)
    before, config = folder.config(), SearchConfig.build(folder.config_file, dict(flags))
    profile, environment = load_profile(config.device), folder.environment()
    for warning in _warnings(profile, environment, is_other="device" in flags):
        sys.stderr.write(f"Warning: {profile.name}: {warning}\n")
    path = out or folder.path / _place(profile, flags)
    _check_free(path)

    store = StudyStore(folder.study, create=False)
    facts, trials = load_facts(store), store.trials()
    _check_languages(config, trials)
    target = Target(
        profile=profile,
        config=config,
        dimensions=facts.dimensions,
        run_device=facts.device,
        run_budgets=budgets_of(facts),
    )
    repriced = tuple(reprice(trials, target)) if trials else ()
    outcome = replace(
        find_outcome(store, _facts(facts, target), repriced),
        repriced_from=facts.device,
        asked_before=_asked_before(before, config),
        ended=None,  # what it left open was counted for the run's own device and question
        artifacts_are_of_host=environment.get("processor") == processor(),
    )

    origin = _origin(folder, target, path)
    _make(path, origin)
    configuration = f"# {ORIGIN}\n{origin}\n# the run's config.toml\n{folder.config_file.read_text(encoding='utf-8')}"
    results = ResultFiles(path, facts.dimensions)
    write_outcome(results, outcome, config_toml=configuration, environment=environment, as_json=as_json)
    if outcome.recommended is None:
        sys.exit(NO_RECIPE_EXIT)


def _check_languages(config: SearchConfig, trials: Sequence[Trial]) -> None:
    """Raise InputError where a share of detected languages is asked for that the run did not measure."""
    if lacks_languages(trials[0].accuracy if trials else None, config.min_language_accuracy):
        raise InputError(
            "--min-language-accuracy: this run measured no detected languages: its model knows English only, "
            "or it is older than the option"
        )


def _warnings(profile: DeviceProfile, environment: Mapping[str, str], *, is_other: bool) -> list[str]:
    known = environment.get("device_sha256", profile.digest)
    changed = (
        [] if is_other or known == profile.digest else ["its profile changed since the run: costs are the new ones"]
    )
    return [*profile.warnings, *changed]


def _place(profile: DeviceProfile, flags: Mapping[str, Any]) -> Path:
    """Of the results in the run's folder: a device's, or a question's on the run's own, such as `wer_budget+20`."""
    if "device" in flags:
        return Path("devices", profile.name)
    return Path(
        "questions", "_".join(re.sub(r"[^\w.,+-]", "", f"{name}{value}") for name, value in sorted(flags.items()))
    )


def _facts(facts: RunFacts, target: Target) -> RunFacts:
    """The run's, with what is asked now."""
    config, profile = target.config, target.profile
    return replace(
        facts,
        device=profile.name,
        limits=config.cost_limits(profile.ram_available_mb),
        wer_budget=config.wer_budget,
        confidence=config.confidence,
        min_language_accuracy=config.min_language_accuracy,
    )


def _asked_before(before: SearchConfig, now: SearchConfig) -> dict[str, str]:
    """By option, what the run was asked, where it is something else now."""
    return {
        name: str(getattr(before, name))
        for name in ("wer_budget", "objective", "confidence", "min_language_accuracy")
        if getattr(before, name) != getattr(now, name)
    }


def _check_free(path: Path) -> None:
    """Raise InputError unless the folder is new, empty, or holds an earlier repricing."""
    if path.is_dir() and (not any(path.iterdir()) or (path / ORIGIN).is_file()):
        return
    if path.exists():
        raise InputError(f"--out {path}: exists and is no repricing; give a new or an empty folder")


def _make(path: Path, origin: str) -> None:
    """The folder, with its mark before anything else. Raises InputError when it cannot be written."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        write_text_whole(path / ORIGIN, origin)
    except OSError as error:
        raise InputError(f"--out {path}: cannot be written ({error.strerror})") from error


def _origin(folder: RunFolder, target: Target, path: Path) -> str:
    """Where the results come from, as TOML: the run and the device with their digests, limits, program version."""
    digests = {name: value for name, value in folder.environment().items() if name.endswith("_sha256")}
    values = {
        "whisperfit": version("whisperfit"),
        "run": {
            "folder": Path(os.path.relpath(folder.path, path)).as_posix(),
            "device": target.run_device,
            **({"study_sha256": sha256_of_file(file)} if (file := folder.study.file) else {}),
            **digests,
        },
        "device": {
            "name": target.profile.name,
            "sha256": target.profile.digest,
            "latencies": target.profile.source,
            "max_memory_mb": target.config.cost_limits(target.profile.ram_available_mb).max_memory_mb,
        },
        "configuration": tomllib.loads(target.config.to_toml(path)),
    }
    return tomli_w.dumps(values)
