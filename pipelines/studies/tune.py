"""Optuna chooses settings on val, a batch at a time; the best is fitted over seeds and measured."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from cache.errors import DataError, SettingsError
from cache.files import write_atomic
from cache.index import Index
from cache.paths import view_names
from cache.store import open_view
from pipelines.evaluation import PERCENT, plain
from pipelines.settings import Settings
from pipelines.stages import RESULTS
from pipelines.studies.page import (
    Section,
    cell,
    trials_figures,
    trials_table,
    warnings_of,
    write_page,
)
from pipelines.studies.paper import Entry, Summary, summarise
from pipelines.studies.sweep import plain_cell, write
from pipelines.studies.trials import Trials, code_of, measuring, searching
from train import metrics
from train.settings import Train
from train.vary import vary

STATES = {"ok": "complete", "dropped": "pruned", "failed": "failed", "refused": "failed"}
KEPT = {"val_mAP": "val_map", "val_loss": "val_loss"}  # measure -> its name in a fit's history
REMARK = "Trials that ended early show the value of their last epoch, and are not compared."


def tune(
    settings: Settings,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> dict[str, Any]:
    """Go on with the study of these settings until it has `tune.trials` trials; fit the best over
    `tune.seeds` and measure those, and nothing else, on `evaluate.split`.

    Writes journal.log, tune.csv, tune.parquet, tune.html, best.json and params.yaml (all settings,
    with the best ones) below results/tune; gives what best.json holds and the paths. Raises
    SettingsError where val does not choose, DataError where no trial came to an end.
    """
    from train.search import Study

    if settings.train.select == "last":
        raise SettingsError("tune chooses by val: set train.select to val or val_loss")
    trials, folder = searching(settings), RESULTS / "tune"
    more = settings.train.select == "val" and _ranked(trials.index)
    measure = "val_mAP" if more else "val_loss"
    about = _about(trials, settings.train)
    study = Study(folder / "journal.log", settings.train, settings.tune, about, more)
    fitted = _search(study, trials, measure, settings.tune.trials, settings.tune.batch, progress)
    best, rows = study.best(), study.rows()
    if best is None:
        why = next((row["facts"]["reason"] for row in rows if row["facts"].get("reason")), "")
        raise DataError(f"no trial came to an end: {why or 'others are still running'}")
    final = measuring(settings, ["val", settings.evaluate.split])
    again = tuple(vary(best.settings, {"train.seed": seed}) for seed in settings.tune.seeds)
    done = {}
    with study.finishing():
        for number, trial in final.run(again):
            done[number] = trial
            fitted += trial.new and trial.status != "refused"
            progress(len(rows), len(rows), f"the best, {len(done)} of {len(again)} seeds")
    evaluate = settings.evaluate
    summary = summarise(
        Entry(best.settings.head, "", again),
        [done[n] for n in range(len(again))],
        evaluate.split,
        evaluate.confidence,
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
        "untrained": _untrained(done.values()),
    }
    text = json.dumps(plain(result), indent=1, ensure_ascii=False)
    write_atomic(folder / "best.json", (text + "\n").encode())
    whole = settings.model_copy(update={"train": best.settings}).model_dump(mode="json")
    said = f"# The best of study {study.name}: trial {best.number}, {measure} {best.value:.6f}.\n"
    text = said + yaml.safe_dump(whole, sort_keys=False, allow_unicode=True)
    write_atomic(folder / "params.yaml", text.encode())
    page = _write_page(settings, trials, rows, result, folder, measure, more)
    return {
        **result,
        "fitted": fitted,
        "ways": [*trials.words(), *final.words()],
        "journal": str(folder / "journal.log"),
        "params": str(folder / "params.yaml"),
        "report": str(page),
    }


def _search(
    study: Any,
    trials: Trials,
    measure: str,
    total: int,
    batch: int,
    progress: Callable[[int, int, str], None],
) -> int:
    """Ask, fit and tell until nothing is left to ask for; how many fits that took."""
    fitted = 0
    progress(total - study.left, total, "")
    while asked := study.ask(batch):
        before = total - study.left - len(asked)
        told: list[int] = []

        def watch(
            number: int,
            row: Mapping[str, float],
            asked: Sequence[Any] = asked,
            before: int = before,
            told: list[int] = told,
        ) -> bool:
            note = f"trial {asked[number].number}, epoch {row['epoch']:.0f}"
            progress(before + len(told), total, note)
            return study.report(asked[number].number, int(row["epoch"]), row[KEPT[measure]])

        for number, trial in trials.run([one.settings for one in asked], watch):
            record = trial.record or {}
            facts = {name: record.get(name) for name in ("best_epoch", "together", "cache_key")}
            facts |= {
                "seconds": record.get("seconds"),
                "trial": trial.key,
                "reason": trial.reason,
                "kept": not trial.new,
            }
            value, state = record.get(KEPT[measure]), STATES[trial.status]
            study.tell(asked[number].number, value, state, facts)
            fitted += trial.new and trial.status != "refused"
            told.append(number)
    progress(total - study.left, total, "")
    return fitted


def _ranked(index: Index) -> bool:
    """Whether val mAP can say which head is better: as `train.fit.selected_by`."""
    here = index.person_status == "ok"
    some = index.targets[here & np.isin(index.splits, ("train", "val"))]
    shares = metrics.is_distribution(some) and not metrics.single_label(some)
    return not shares and bool((index.targets[here & (index.splits == "val")] > 0.5).any())


def _about(trials: Trials, base: Train) -> dict[str, Any]:
    """What decides a trial's value beside its settings."""
    return {
        "dataset": trials.index.dataset,
        "index": trials.digest,
        "views": {name: open_view(trials.root, name).key for name in view_names(trials.root)},
        "code": code_of(base.head),
        "device": trials.device,
    }


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


def _untrained(trials: Any) -> list[str]:
    return sorted({name for t in trials if t.record for name in t.record.get("untrained", [])})


def _write_page(
    settings: Settings,
    trials: Trials,
    found: Sequence[Mapping[str, Any]],
    result: Mapping[str, Any],
    folder: Path,
    measure: str,
    more: bool,
) -> Path:
    rows = []
    for one in found:
        names_of = ("best_epoch", "seconds", "reason", "trial", "cache_key")
        facts = {name: one["facts"].get(name) for name in names_of}
        plainly = {n: plain_cell(v) for n, v in one.items() if n not in ("facts", "value", "state")}
        rows.append({"status": one["state"], measure: one["value"], **plainly, **facts})
    rows.sort(key=lambda row: _place(row, measure, more))
    write(rows, folder, "tune")
    names = list(settings.tune.space)
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
            Section("Trials, the best first", table=trials_table(rows, names, measure, REMARK)),
            *trials_figures(complete, names, measure, more),
        ],
    )


def _place(row: Mapping[str, Any], measure: str, more: bool) -> tuple[bool, float]:
    if row["status"] != "complete":
        return True, row["number"]
    return False, -row[measure] if more else row[measure]


def in_words(result: Mapping[str, Any]) -> list[str]:
    """The best trial, and what it measures, a sentence each."""
    best, found = result["best"], result["measured"]
    settings = ", ".join(f"{name} {cell(v)}" for name, v in best["changes"].items())
    said = [f"Trial {best['trial']}, {result['measure']} {best['value']:.4f}: {settings}."]
    if found is None:
        return [*said, f"It could not be fitted over the seeds: {result['reason']}."]
    if running := result["states"].get("running"):
        said.append(f"{running} trials still run elsewhere: give the command again after them.")
    main = found["measure"]
    scale, unit = (100, " %") if main in PERCENT else (1, "")
    half = found["half_over_seeds"]
    around = "" if np.isnan(half) else f" ± {scale * half:.2f} over seeds"
    seeds = ", ".join(map(str, result["seeds"]))
    return [
        *said,
        f"On {result['split']}: {main} {scale * found['mean']:.2f}{unit}{around}, "
        f"{scale * found['low']:.2f} to {scale * found['high']:.2f} over pictures "
        f"(N {found['n_evaluated']:,}, {found['n_dropped']:,} dropped, seeds {seeds}, cache key "
        f"{found['cache_key'][:12]}).",
    ]
