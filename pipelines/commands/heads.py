"""The commands on heads: `train`, `evaluate`, `probe`, `compare`, `report`, `predict`."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from cache.boxes import Box
from pipelines import settings as params
from pipelines import stages
from pipelines.console import (
    PARAMS,
    Json,
    Params,
    Set,
    bar,
    escape,
    name_failures,
    out,
    say,
    untrained,
)
from pipelines.results import Results
from pipelines.wording import UNTRAINED, between, counts, number, percent, points, size

HERE = Results()
four = partial(number, digits=4)


def train(set_: Set = [], file: Params = PARAMS, as_json: Json = False) -> None:
    """Fit one head on the cache; pictures and frozen networks are not touched.

    Example: emocache train --set train.lr=3e-4 --set train.hugme.beta=0.3
    """
    settings = params.load(file, set_)
    with bar("epochs", as_json) as progress:
        result = stages.train(
            settings, lambda row: progress(int(row["epoch"]), settings.train.epochs)
        )
        progress(result["epochs"], result["epochs"])
    say(result, as_json, _show_train)


def _show_train(result: dict[str, Any]) -> None:
    untrained(result["untrained"])
    for split, reasons in result["dropped"].items():
        if reasons:
            out.print(f"dropped from {split}: {counts(reasons)}")
    name_failures(reason for reasons in result["dropped"].values() for reason in reasons)
    val, epochs = f"mAP on val {percent(result['val_map'])}", result["epochs"]
    stop = ""
    if result["stopped_early"]:
        waited = epochs - result["best_epoch"]
        stop = f"stopped early at epoch {epochs}, no better on val for {waited} epochs; "
    over = mean_over(result["val_labels"], len(result["positives"]))
    if result["selected_by"] == "val_loss":
        val, over = f"loss on val {four(result['val_loss'])}", ""
    on_val = f", {val}{over} (N {result['persons']['val']})" if result["persons"]["val"] else ""
    if result["resumed"]:
        out.print(f"went on after epoch {result['resumed']} of a fit that was stopped")
    out.print(
        f"{result['head']} fitted on {result['persons']['train']} persons in "
        f"{result['seconds']['fit']:.1f} s: {stop}kept epoch {result['best_epoch']} of {epochs}"
        f"{on_val}, seed {result['seed']}"
    )


def mean_over(counted: int, labels: int) -> str:
    """Said beside an mAP that leaves out labels, for they have no positive."""
    return f", mean over {counted} of {labels} labels" if counted < labels else ""


def evaluate(set_: Set = [], file: Params = PARAMS, as_json: Json = False) -> None:
    """Score the trained head on a split, with intervals and the chance level.

    Example: emocache evaluate --set evaluate.split=val
    """
    settings = params.load(file, set_)
    named = any(one.startswith("train.head=") for one in set_)
    say(stages.evaluate(settings, settings.train.head if named else None), as_json, show_metrics)


def show_metrics(metrics: dict[str, Any]) -> None:
    from pipelines.evaluation import fitted_elsewhere

    about = metrics["provenance"]
    split = next((name for name in metrics if name not in ("val", "provenance")), "val")
    numbers = metrics[split]
    table = Table("measure", split)
    table.add_row("head", about["head"])
    for name, value in _measures(numbers):
        table.add_row(name, value)
    table.add_row("N evaluated", f"{numbers['n_evaluated']:,}")
    table.add_row("N dropped", f"{numbers['n_dropped']:,} ({counts(numbers['dropped'])})")
    out.print(table)
    name_failures(numbers["dropped"])
    out.print(
        f"{about['dataset']}, head {about['head']}, seed {about['seed']}, cache key "
        f"{about['cache_key'][:12]}; {about['interval']}"
    )
    for said in (fitted_elsewhere(about), about["note"]):
        if said:
            out.print(f"[yellow]{escape(said)}[/]")
    for gap in about.get("leaks_not_sought", ()):  # which results of an older emocache lack
        out.print(f"[yellow]{escape(gap)}[/]")
    for weights in about["weights"]:
        out.print("  " + escape(weights), style="yellow" if UNTRAINED in weights else "dim")


def _measures(numbers: dict[str, Any]) -> list[tuple[str, str]]:
    """What is worth a line of a split's numbers, by the kind of its labels."""
    from train.metrics import MEASURES

    def ends(key: str, shown: Callable[..., str] = percent) -> str:
        return between(numbers[f"{key}_low"], numbers[f"{key}_high"], shown)

    leaked = numbers.get("n_leaked", 0)
    without = f", without {leaked:,} leaked person{'' if leaked == 1 else 's'}"
    lines = []
    if numbers["kind"] == "distribution":
        by = f", {numbers['chance_distribution']} distribution for all"
        for key in MEASURES:
            lines += [
                (key, f"{four(numbers[key])} ({ends(key, four)})"),
                (key + by, four(numbers[f"chance_{key}"])),
            ]
            if f"{key}_without_leaked" in numbers:
                lines.append((key + without, four(numbers[f"{key}_without_leaked"])))
        return [*lines, *_ratings(numbers)]
    if numbers["kind"] == "single":
        for key in ("accuracy", "balanced_accuracy", "macro_F1"):
            said = f"{percent(numbers[key])} ({ends(key)})"
            lines.append((key.replace("_", " "), said))
        lines.append(("accuracy, most frequent label for all", percent(numbers["chance_accuracy"])))
    over = mean_over(numbers["classes_with_positive"], numbers["classes"])
    lines += [
        ("mAP", percent(numbers["mAP"]) + over),
        ("interval", ends("mAP")),
        ("random order", percent(numbers["random_mAP"])),
        ("chance mAP", percent(numbers["chance_mAP"])),
        ("mAP, interpolated (VOC)", percent(numbers["mAP_interpolated"])),
    ]
    for key in ("accuracy", "mAP"):
        if f"{key}_without_leaked" in numbers:
            lines.append((key + without, percent(numbers[f"{key}_without_leaked"])))
    if "C_F1" in numbers:
        f1 = (percent(numbers[key]) for key in ("C_F1", "O_F1"))
        lines += [
            ("C-F1, O-F1", ", ".join(f1)),
            ("Jaccard", percent(numbers["jaccard"])),
        ]
    return [*lines, *_ratings(numbers)]


def _ratings(numbers: dict[str, Any]) -> list[tuple[str, str]]:
    """Of a head that predicts valence, arousal and dominance."""
    from cache.index import VAD

    if "VAD_error" not in numbers:
        return []
    lines = [("persons rated", f"{numbers['n_rated']:,}")]
    for name, key in (
        ("mean error of valence, arousal, dominance", "VAD_error"),
        *((f"error of {name}", f"{name}_error") for name in VAD),
    ):
        ends = between(numbers[f"{key}_low"], numbers[f"{key}_high"], number)
        lines.append((name, f"{number(numbers[key])} ({ends})"))
    lines.append(("mean error, mean of train for all", number(numbers["chance_VAD_error"])))
    return lines


def probe(set_: Set = [], file: Params = PARAMS, as_json: Json = False) -> None:
    """What each view is worth to a linear head: alone, with all others, and left out; in seconds.

    Example: emocache probe --set evaluate.split=val
    """
    settings = params.load(file, set_)
    with bar("sets of views", as_json) as progress:
        result = stages.probe(settings, progress)
    say(result, as_json, _show_probe)


def _show_probe(found: dict[str, Any]) -> None:
    untrained(found["untrained"])
    table = Table("views", "penalty", "mAP on val", f"mAP on {found['split']}", "interval")
    blind = []
    names = {name for row in found["rows"] for name in row["views"]}
    for row in found["rows"]:
        left_out = sorted(names - set(row["views"]))
        called = {"all": "all", "without": f"all but {', '.join(left_out)}"}
        table.add_row(
            called.get(row["set"], row["views"][0]),
            f"{row['penalty']:g}",
            percent(row["val_mAP"]),
            percent(row["mAP"]),
            between(row["low"], row["high"], percent),
        )
        if row["set"] == "alone" and row["signal"] is False:
            blind.append(row["views"][0])
    out.print(table)
    out.print(
        f"N evaluated {found['persons']:,}, N dropped {sum(found['dropped'].values()):,} "
        f"({counts(found['dropped'])}); random order {percent(found['random_mAP'])}; "
        f"{found['confidence']:.0%} intervals over {found['drawn']}, seed {found['seed']}; cache "
        f"key {found['cache_key'][:12]}"
    )
    if any(row["signal"] is None for row in found["rows"]):
        out.print(
            f"[yellow]all of {found['split']} hangs together (one of the {found['drawn']}): no "
            "interval, so whether a view carries a signal cannot be said; see emocache crossval[/]"
        )
    if blind:
        out.print(
            f"[yellow]no signal that a line can see, in the view alone: {', '.join(blind)}[/]"
        )
    if found["absent"]:
        out.print(f"not in the cache: {', '.join(found['absent'])}")
    if found["note"]:
        out.print(f"[yellow]{escape(found['note'])}[/]")


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RESULTS...", help="Where `evaluate` wrote, two folders or more."),
    ],
    page: Annotated[
        Path | None,
        typer.Option(help="The page to write: results/compare.html, with --json none."),
    ] = None,
    set_: Set = [],
    file: Params = PARAMS,
    as_json: Json = False,
) -> None:
    """Is one head better than another? Each against the first on the same persons, by shared
    resamples of pictures; on the terminal, and as a page with the differences of each label.

    Each folder is what `evaluate` left: keep one by `cp -r results results-hugme` before the next
    head is fitted.

    Example: emocache compare results-hugme results-rrla results-mlp
    --set evaluate.bootstrap=10000
    """
    from pipelines import comparison

    if len(runs) < 2:
        raise typer.BadParameter("name two results folders or more")
    evaluate = params.load(file, set_).evaluate
    if len(runs) == 2:
        found = comparison.compare(runs[0], runs[1], evaluate)
    else:
        found = comparison.compare_runs(runs, evaluate)
    if page is not None or not as_json:
        from pipelines.studies import compare_page

        path = compare_page.write(found, page or HERE.folder / "compare.html")
        found = {**found, "page": str(path)}
    say(found, as_json, _show_comparison)


def _show_comparison(found: dict[str, Any]) -> None:
    first, *others = found["runs"]
    several, many = len(others) > 1, len(found["tests"]) > 1
    other = "run" if several else others[0]["name"]
    columns = ["measure", "A", other, f"{other} - A", f"{found['confidence']:.0%} interval", "p"]
    table = Table(*(["run"] if several else []), *columns, *(["p (Holm)"] if many else []))
    least = 2 / (found["resamples"] + 1)
    for row in found["tests"]:
        p = row["p"]
        plain = found["kind"] == "distribution" or row["measure"].endswith("_error")
        shown, apart = (four, four) if plain else (percent, points)
        table.add_row(
            *([row["run"]] if several else []),
            row["measure"],
            shown(row["a"]),
            shown(row["b"]),
            apart(row["difference"]),
            between(row["low"], row["high"], apart),
            "unknown" if p is None else f"{'at most ' if p <= least else ''}{p:.2g}",
            *([number(row["p_holm"], 3)] if many else []),
        )
    out.print(table)
    if many:
        out.print(
            f"{len(found['tests'])} comparisons: by chance alone one in twenty has p below 0.05; "
            "p (Holm) is adjusted for all of them"
        )
    for side in (first, *others):
        out.print(
            f"{side['name']}: {escape(side['folder'])}, {side['dataset']}, head {side['head']} "
            f"{side['head_sha256'][:12]}, seed {side['seed']}, cache key "
            f"{side['cache_key'][:12]}; N dropped {side['n_dropped']:,}, N not scored by all "
            f"{side['n_only']:,}"
        )
    out.print(
        f"N evaluated {found['n_evaluated']:,} of {found['split']}, in {found['n_pictures']:,} "
        f"pictures; {found['resamples']:,} shared resamples of {found['drawn']}, seed "
        f"{found['seed']}"
    )
    for network in sorted({one for side in found["runs"] for one in side["untrained"]}):
        untrained([network])
    for note in sorted({side["note"] for side in found["runs"]} - {""}):
        out.print(f"[yellow]{escape(note)}[/]")
    if "page" in found:
        out.print(escape(found["page"]))


def report(set_: Set = [], file: Params = PARAMS, as_json: Json = False) -> None:
    """Write results/report.html: metrics, curves, label graphs and persons, in one file.

    Example: emocache report --set report.people=24
    """
    settings = params.load(file, set_)
    with bar("persons and pictures", as_json) as progress:
        path = stages.report(settings, progress)
    say(
        {"report": str(path), "bytes": path.stat().st_size},
        as_json,
        lambda found: out.print(f"{path} ({size(found['bytes'])})"),
    )


def _boxes(texts: list[str]) -> list[str]:
    for text in texts:
        try:
            x1, y1, x2, y2 = _box(text)
        except ValueError:
            raise typer.BadParameter(f"{text!r}: write it as X1,Y1,X2,Y2 in pixels") from None
        if not (x1 < x2 and y1 < y2):
            raise typer.BadParameter(f"{text!r}: X1 must be below X2 and Y1 below Y2")
    return texts


def _box(text: str) -> Box:
    x1, y1, x2, y2 = (float(side) for side in text.split(","))
    return x1, y1, x2, y2


def predict(
    pictures: Annotated[list[Path], typer.Argument(help="Pictures of people.")],
    box: Annotated[
        list[str],
        typer.Option("--box", metavar="X1,Y1,X2,Y2", callback=_boxes, help="A person, in pixels."),
    ] = [],
    folder: Annotated[
        Path, typer.Option("--out", help="Where overlay pictures go.")
    ] = HERE.predictions,
    top: Annotated[int, typer.Option(min=1, help="Emotions shown a person.")] = 5,
    head: Annotated[Path, typer.Option(help="The trained head.")] = HERE.head,
    set_: Set = [],
    file: Params = PARAMS,
    as_json: Json = False,
) -> None:
    """Emotions of the people in new pictures: a table, JSON, and overlay pictures.

    Ends with 1 when any picture gave none; the others are done first.

    Example: emocache predict family.jpg --box 120,40,310,420
    """
    from pipelines.predict import predict as run

    settings = params.load(file, set_)
    result = run(settings, head, pictures, [_box(text) for text in box], folder, top)
    say(result, as_json, lambda r: _show_predictions(r, top))
    if any(picture["status"] != "ok" for picture in result["pictures"]):
        raise typer.Exit(1)


def _show_predictions(result: dict[str, Any], top: int) -> None:
    if result["note"]:
        out.print(f"[yellow]head trained on {result['dataset']}: {escape(result['note'])}[/]")
    untrained(result["untrained"])
    if result["not_learned"]:
        out.print(
            f"no score for {len(result['not_learned'])} labels that no training person had: "
            + ", ".join(result["not_learned"])
        )
    thresholds = result["thresholds"]
    if thresholds:
        out.print("* at or above the label's threshold, which evaluate took from val")
    for picture in result["pictures"]:
        if picture["status"] != "ok":
            out.print(f"{escape(picture['picture'])}: {escape(picture['reason'])}")
            continue
        faces, objects = ("head" in result["views"]), ("objects" in result["views"])
        columns = ["person", *(["face"] if faces else [])]
        columns += ["objects (attention)"] if objects else []
        table = Table(*columns, "emotions", title=escape(picture["picture"]))
        for at, person in enumerate(picture["people"], 1):
            things = [
                o["name"] + (f" {o['weight']:.2f}" if o["weight"] is not None else "")
                for o in person["objects"]
            ]
            emotions = [
                f"{name} {p:.2f}{'*' if p >= thresholds.get(name, math.inf) else ''}"
                for name, p in list(person["emotions"].items())[:top]
            ]
            table.add_row(
                str(at),
                *(["yes" if person["head"] else "no"] if faces else []),
                *([", ".join(things) or "none"] if objects else []),
                ", ".join(emotions),
            )
        out.print(table)
        if picture["overlay"]:
            out.print(f"overlay: {escape(picture['overlay'])}")
