"""`whisperfit export --bundle`: points of a front in one folder; the runtime takes what the device can afford."""

import json
from collections.abc import Sequence

from common.errors import InputError
from common.log import tell
from compression.export.bundle import BUNDLE, FEWEST, MOST, complete_bundle
from compression.export.targets import export
from compression.export.whole_folder import check_replaceable, whole_folder
from compression.recipe.runtimes import OWN_TARGET
from search.commands.export import ExportOptions, check_only_run, material_of
from search.outcome import Outcome
from search.records.folder import RunFolder
from search.records.run_records import find_trial, read_outcome
from search.records.study_store import StudyStore
from search.session import reopen_session
from search.trial import Trial


def run_bundle(options: ExportOptions, *, as_json: bool) -> None:
    """Write the bundle and print where it is, and what equal files saved."""
    if options.run is None or options.target != OWN_TARGET:
        raise InputError(f"--bundle takes points of a run, for {OWN_TARGET}: give a run, without --target")
    check_only_run(options)
    check_replaceable(options.out, BUNDLE, "bundle")
    run = RunFolder.open(options.run)
    points = bundled(read_outcome(StudyStore(run.study, create=False)), options.trial)
    session = reopen_session(run, tell)
    with whole_folder(options.out) as folder:
        for point in points:
            material = material_of(session, point.recipe)
            tell(f"Exporting {material.model.name}, recipe {material.recipe.id}, {point.recipe.summary()}")
            out = folder / material.recipe.id
            network = material.network()
            export(material.model, material.recipe, network, out, target=OWN_TARGET, sources=material.sources)
        saved = complete_bundle(folder, [point.recipe.id for point in points])
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    names = [point.recipe.id for point in points]
    if as_json:
        print(json.dumps({"bundle": str(options.out), "points": names, "size_bytes": size, "saved_bytes": saved}))
        return
    print(f"{options.out}: {', '.join(names)}; {size / 1e6:.1f} MB, {saved / 1e6:.1f} MB less than apart")


def bundled(outcome: Outcome, wanted: str | None) -> list[Trial]:
    """The trials that --trial names, else the recommended one with the front's slowest and fastest; best WER first.

    The original is only there where it is named. Raises InputError when they are not two to four.
    """
    if wanted is None:
        compressed = [trial for trial in outcome.front if trial is not outcome.baseline]
        front = sorted(compressed, key=_latency_ms)
        ends = [trial for trial in (front[:1] + front[-1:]) if trial is not outcome.recommended]
        found = [*([outcome.recommended] if outcome.recommended else []), *ends]
    else:
        found = [find_trial(outcome, name.strip()) for name in wanted.split(",")]
    found = list({trial.recipe.id: trial for trial in found}.values())
    if not FEWEST <= len(found) <= MOST:
        raise InputError(f"--bundle takes {FEWEST} to {MOST} trials, but got {len(found)}; choose: --trial A,B,C")
    return _best_first(found)


def _best_first(trials: Sequence[Trial]) -> list[Trial]:
    """By latency, longest first: on a front that is by accuracy too."""
    return sorted(trials, key=_latency_ms, reverse=True)


def _latency_ms(trial: Trial) -> float:
    if trial.costs.latency_ms is None:
        raise InputError(f"trial {trial.number} has no latency, by which a bundle is ordered")
    return trial.costs.latency_ms
