"""Optuna chooses settings on val, a batch at a time; the best is fitted over seeds and measured."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from cache.errors import DataError, SettingsError
from cache.files import write_atomic, write_json
from cache.index import Index
from cache.paths import view_names
from cache.store import open_view
from pipelines.results import Results, plain
from pipelines.settings import Settings
from pipelines.studies.page import Section, warnings_of, write_page
from pipelines.studies.rendering import plain_cell, write_rows
from pipelines.studies.summary import Entry, Summary, summarise
from pipelines.studies.trials import (
    Progress,
    Trials,
    code_of,
    fits_of,
    measuring,
    quiet,
    searching,
    untrained_of,
)
from pipelines.studies.trials_page import best_first, trials_figures, trials_table
from pipelines.wording import Scale, cell
from train.heads import names
from train.labels import label_kind, ranks
from train.settings import Choices, Train, Tune
from train.vary import vary

if TYPE_CHECKING:  # loads Optuna
    from train.search import Asked, Study

STATES: dict[str, Literal["complete", "pruned", "failed"]] = {  # of a trial -> of Optuna's
    "ok": "complete",
    "dropped": "pruned",
    "failed": "failed",
    "refused": "failed",
}
KEPT = {"val_mAP": "val_map", "val_loss": "val_loss"}  # measure -> its name in a fit's history
REMARK = "Trials that ended early show the value of their last epoch, and are not compared."


def tune(settings: Settings, progress: Progress = quiet) -> dict[str, Any]:
    """Go on with the study of these settings until it has `tune.trials` trials; fit the best over
    `tune.seeds` and measure those, and nothing else, on `evaluate.split`.

    Writes journal.log, tune.csv, tune.parquet, tune.html, best.json and params.yaml (all settings,
    with the best ones) below results/tune; gives what best.json holds and the paths. Raises
    SettingsError where val does not choose, DataError where no trial came to an end.
    """
    from train.search import Study

    if settings.train.select == "last":
        raise SettingsError("tune chooses by val: set train.select to val or val_loss")
    trials, folder = searching(settings), Results().tune
    more = settings.train.select == "val" and _ranked(trials.index)
    measure = "val_mAP" if more else "val_loss"
    about = _about(trials, settings.train, settings.tune)
    study = Study(folder / "journal.log", settings.train, settings.tune, about, more)
    fitted = _search(study, trials, measure, settings.tune, progress)
    best, rows = study.best(), study.rows()
    if best is None:
        why = next((row["facts"]["reason"] for row in rows if row["facts"].get("reason")), "")
        raise DataError(f"no trial came to an end: {why or 'others are still running'}")
    final = measuring(settings, ["val", settings.evaluate.split])
    again = tuple(vary(best.settings, {"train.seed": seed}) for seed in settings.tune.seeds)

    def finishing(done: int, total: int, note: str) -> None:
        progress(len(rows), len(rows), f"the best, {done} of {total} seeds")

    with study.finishing():
        found = final.collect(again, finishing)
    fitted += fits_of(trial for trial in found if trial.fitted_now)
    evaluate = settings.evaluate
    summary = summarise(
        Entry(best.settings.head, "", again), found, evaluate.split, evaluate.confidence
    )
    states = [row["state"] for row in rows]
    result = {
        "study": study.name,
        "trials": len(rows),
        "states": {state: states.count(state) for state in dict.fromkeys(states)},
        "measure": measure,
        "best": {"trial": best.number, "value": best.value, "changes": best.changes},
        "split": evaluate.split,
        "seeds": settings.tune.seeds,
        "measured": None if summary.missing else _measured(summary),
        "reason": summary.missing,
        "dataset": trials.index.dataset,
        "note": trials.index.note,
        "untrained": untrained_of(found),
    }
    write_json(folder / "best.json", plain(result))
    _write_params(settings, study.name, best, measure, folder / "params.yaml")
    page = _write_page(settings, trials, rows, result, folder, more)
    return {
        **result,
        "fitted": fitted,
        "ways": [*trials.words(), *final.words()],
        "journal": str(folder / "journal.log"),
        "params": str(folder / "params.yaml"),
        "report": str(page),
    }


def _ranked(index: Index) -> bool:
    """Whether val mAP can say which head is better: as a fit decides it, for all persons that any
    head may count."""
    here = index.person_status == "ok"
    val = here & (index.splits == "val")
    fitted = index.targets[val | here & (index.splits == "train")]
    return ranks(index.kind or label_kind(fitted), index.targets[val])


def _about(trials: Trials, base: Train, asked: Tune) -> dict[str, Any]:
    """What decides a trial's value beside its settings."""
    code: Any = code_of(base.head)
    axis = asked.space.get("train.head")
    if isinstance(axis, Choices):  # what is no head is refused by the study
        code = {head: code_of(head) for head in axis.choices if head in names()}
    return {
        "dataset": trials.index.dataset,
        "index": trials.digest,
        "views": {name: open_view(trials.root, name).key for name in view_names(trials.root)},
        "code": code,
        "device": trials.device,
    }


def _search(study: "Study", trials: Trials, measure: str, asked: Tune, progress: Progress) -> int:
    """Ask, fit and tell until nothing is left to ask for; how many fits that took."""
    fitted, total = 0, asked.trials
    progress(total - study.left, total, "")
    while batch := study.ask(asked.batch):
        fitted += _fit_batch(study, trials, measure, batch, total, progress)
    progress(total - study.left, total, "")
    return fitted


def _fit_batch(
    study: "Study",
    trials: Trials,
    measure: str,
    batch: "Sequence[Asked]",
    total: int,
    progress: Progress,
) -> int:
    """Each trial is told as soon as it is there, so that a kill loses none that has ended."""
    before, told, fitted = total - study.left - len(batch), 0, 0

    def watch(number: int, row: Mapping[str, float]) -> bool:
        trial = batch[number].number
        progress(before + told, total, f"trial {trial}, epoch {row['epoch']:.0f}")
        return study.report(trial, int(row["epoch"]), row[KEPT[measure]])

    for number, trial in trials.run([one.settings for one in batch], watch):
        record = trial.record or {}
        facts = {
            **{name: record.get(name) for name in ("best_epoch", "together", "cache_key")},
            "seconds": record.get("seconds"),
            "trial": trial.key,
            "reason": trial.reason,
            "kept": not trial.new,
        }
        study.tell(batch[number].number, record.get(KEPT[measure]), STATES[trial.status], facts)
        fitted += trial.fitted_now
        told += 1
    return fitted


def _measured(summary: Summary) -> dict[str, Any]:
    main = summary.main
    return {
        "measure": main,
        "mean": summary.mean[main],
        "half_over_seeds": summary.half[main],
        "low": summary.low,
        "high": summary.high,
        **{name: summary.numbers[name] for name in ("n_evaluated", "n_dropped", "cache_key")},
    }


def _write_params(settings: Settings, study: str, best: "Asked", measure: str, path: Path) -> None:
    """The whole settings file, with the best ones."""
    whole = settings.model_copy(update={"train": best.settings}).model_dump(mode="json")
    said = f"# The best of study {study}: trial {best.number}, {measure} {best.value:.6f}.\n"
    text = said + yaml.safe_dump(whole, sort_keys=False, allow_unicode=True)
    write_atomic(path, text.encode())


def _write_page(
    settings: Settings,
    trials: Trials,
    found: Sequence[Mapping[str, Any]],
    result: Mapping[str, Any],
    folder: Path,
    more: bool,
) -> Path:
    """tune.html, and its rows as tune.csv and tune.parquet."""
    measure = result["measure"]
    rows = best_first([_row(one, measure) for one in found], measure, more)
    write_rows(rows, folder, "tune")
    searched = list(settings.tune.space)
    complete = [row for row in rows if row["status"] == "complete"]
    states = ", ".join(f"{count} {state}" for state, count in result["states"].items())
    return write_page(
        folder / "tune.html",
        f"Study of {settings.train.head}",
        [
            ("study", result["study"]),
            ("data", result["dataset"]),
            ("index", trials.digest[:12]),
            ("trials", f"{len(rows):,} ({states})"),
            ("device", "; ".join([trials.device, *trials.words()])),
        ],
        warnings_of(result["note"], result["untrained"]),
        [
            Section("The best", text=in_words(result)),
            Section("Trials, the best first", table=trials_table(rows, searched, measure, REMARK)),
            *trials_figures(complete, searched, measure, more),
        ],
    )


def _row(one: Mapping[str, Any], measure: str) -> dict[str, Any]:
    """A row of `Study.rows` as those of other studies are."""
    plainly = {n: plain_cell(v) for n, v in one.items() if n not in ("facts", "value", "state")}
    facts = ("best_epoch", "seconds", "reason", "trial", "cache_key")
    told = {name: one["facts"].get(name) for name in facts}
    return {"status": one["state"], measure: one["value"], **plainly, **told}


def in_words(result: Mapping[str, Any]) -> list[str]:
    """The best trial, and what it measures, a sentence each."""
    best, found = result["best"], result["measured"]
    settings = ", ".join(f"{name} {cell(v)}" for name, v in best["changes"].items())
    said = [f"Trial {best['trial']}, {result['measure']} {best['value']:.4f}: {settings}."]
    if found is None:
        return [*said, f"It could not be fitted over the seeds: {result['reason']}."]
    if running := result["states"].get("running"):
        said.append(f"{running} trials still run elsewhere: give the command again after them.")
    scale = Scale.of(found["measure"])
    half = scale.number(found["half_over_seeds"])
    around = f" ± {half} over seeds" if half else ""
    seeds = ", ".join(map(str, result["seeds"]))
    return [
        *said,
        f"On {result['split']}: {found['measure']} "
        f"{scale.number(found['mean'], unit=scale.unit)}{around}, "
        f"{scale.interval(found['low'], found['high'])} over pictures "
        f"(N {found['n_evaluated']:,}, {found['n_dropped']:,} dropped, seeds {seeds}, cache key "
        f"{found['cache_key'][:12]}).",
    ]
