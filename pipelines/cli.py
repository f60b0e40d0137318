"""The command `emocache`: parses, calls `pipelines.stages`, prints. Nothing else lives here."""

import importlib.metadata
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from cache.errors import EmocacheError, SettingsError
from pipelines import cli_cache, cli_studies, stages
from pipelines import settings as params
from pipelines.console import (
    PARAMS,
    Json,
    Params,
    Set,
    bar,
    counts,
    duration,
    err,
    escape,
    out,
    say,
    untrained,
)
from pipelines.process import settle

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(cli_cache.app, name="cache")
INTERRUPTED = 130


def _boxes(texts: list[str]) -> list[str]:
    for text in texts:
        try:
            x1, y1, x2, y2 = _box(text)
        except ValueError:
            raise typer.BadParameter(f"{text!r}: write it as X1,Y1,X2,Y2 in pixels") from None
        if not (x1 < x2 and y1 < y2):
            raise typer.BadParameter(f"{text!r}: X1 must be below X2 and Y1 below Y2")
    return texts


def _box(text: str) -> tuple[float, ...]:
    return tuple(float(side) for side in text.split(","))


def _version(asked: bool) -> None:
    if asked:
        out.print(f"emocache {importlib.metadata.version('emocache')}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_version, help="Print the version."),
    ] = False,
) -> None:
    """Extract features once, train emotion heads in seconds, share the cache."""


def main() -> None:
    """Run a command: exit 0 done, 1 refused with a reason, 2 wrong usage."""
    settle()
    # What takes a while is said while it goes on: weights that are being fetched.
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("extract").setLevel(logging.INFO)
    try:
        app()
    except EmocacheError as refusal:
        err.print(f"[bold red]refused:[/] {escape(refusal)}")
        sys.exit(1)
    except SystemExit as end:
        if end.code == INTERRUPTED:  # typer makes this of Ctrl-C
            err.print("stopped; what was committed stays, run the same command to go on")
        raise


@app.command()
def scenes(
    folder: Annotated[Path, typer.Argument(help="Where to write the data set.")] = Path(
        "data/demo"
    ),
    set_: Set = [],
    file: Params = PARAMS,
    as_json: Json = False,
) -> None:
    """Make the demo data set: collages with made-up labels, in EMOTIC's format.

    Example: emocache scenes data/demo --set demo.pictures=40
    """
    from pipelines.scenes import make_scenes

    settings = params.load(file, set_)
    made = make_scenes(folder, settings.demo)
    say({"folder": str(folder), **made}, as_json, lambda r: out.print(escape(_pairs(r))))


@app.command()
def prepare(set_: Set = [], file: Params = PARAMS, as_json: Json = False) -> None:
    """Read the annotation into the index; say what was clipped, dropped and why.

    Example: emocache prepare --set data.name=emotic --set data.root=/data/emotic
    """
    report = stages.prepare(params.load(file, set_))
    say(report, as_json, _show_prepare)


def _show_prepare(report: dict[str, Any]) -> None:
    out.print(f"{report['dataset']} at {escape(report['root'])}: {report['labels']} labels")
    if report["note"]:
        out.print(f"[yellow]{escape(report['note'])}[/]")
    table = Table("split", "pictures", "persons", "labels per person")
    for split in report["persons"]:
        table.add_row(
            split,
            counts(report["pictures"].get(split, {})),
            counts(report["persons"][split]),
            f"{report['labels_per_person'].get(split, float('nan')):.2f}",
        )
    out.print(table)
    for what, rows in report["rows"].items():
        out.print(f"rows of {what}: {counts(rows)}")
    if report["oddities"]:
        out.print("found on the way: " + escape(counts(report["oddities"])))
    for warning in report["warnings"]:
        out.print(f"[yellow]{escape(warning)}[/]")


@app.command()
def plan(
    probe: Annotated[
        bool, typer.Option(help="Compute a few pictures to tell minutes and sizes.")
    ] = True,
    set_: Set = [],
    file: Params = PARAMS,
    as_json: Json = False,
) -> None:
    """Say what `extract` would compute, why, how long it takes and how big it gets.

    Example: emocache plan --no-probe --set views.depth.network=Intel/dpt-large
    """
    say(stages.plan(params.load(file, set_), probe), as_json, _show_plan)


def _show_plan(found: dict[str, Any]) -> None:
    table = Table("view", "rows", "why")
    for name, view in found["views"].items():
        table.add_row(name, f"{view['rows']:,}", escape(view["reason"]))
    out.print(table)
    out.print(f"pictures to decode: {found['pictures']:,}")
    if found["estimate"]:
        of = found["estimate"]
        out.print(
            f"about {duration(of['seconds'])} on one {of['device']}, {_size(of['bytes'])} in "
            f"{of['files']:,} files (reckoned from {of['pictures']} pictures computed now)"
        )
        out.print(f"time goes to {_shares(of['parts'])}")
    untrained(found["untrained"])
    for warning in found["warnings"]:
        out.print(f"[yellow]{escape(warning)}[/]")


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count > 1e9 else f"{count / 1e6:.1f} MB"


def _shares(parts: dict[str, float], most: int = 4) -> str:
    """The parts that take most, in per cent of all of them."""
    whole = sum(parts.values()) or 1.0
    ranked = sorted(parts.items(), key=lambda part: -part[1])[:most]
    return ", ".join(f"{name} {seconds / whole:.0%}" for name, seconds in ranked)


@app.command()
def extract(
    retry: Annotated[
        bool, typer.Option("--retry", help="Try pictures and rows again that had failed.")
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Compute in N processes, on GPUs one GPU each."),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Compute on the workers of this Dask scheduler."),
    ] = None,
    set_: Set = [],
    file: Params = PARAMS,
    as_json: Json = False,
) -> None:
    """Bring the cache up to date: only rows that are missing or stale are computed.

    Example: emocache extract --set views.objects.k=20
    """
    if workers and cluster:
        raise typer.BadParameter("--workers starts processes here, --cluster asks others: give one")
    given = [f"extract.workers={workers}"] if workers else []
    given += [f"extract.cluster={cluster}"] if cluster else []
    settings = params.load(file, [*set_, *given])

    def loading(weights: Any) -> None:
        if not as_json:
            out.print(escape(weights.words()))

    with bar("pictures", as_json) as progress:
        result = stages.extract(settings, progress, loading, retry)
    say(result, as_json, _show_extract)
    if result["skipped"]:
        path, reason = next(iter(result["skipped"].items()))
        err.print(
            f"{len(result['skipped'])} of the pictures that `prepare` saw are gone or changed (the "
            f"first: {escape(path)}: {escape(reason)}); everything else is extracted. Check "
            "data.root, then run `emocache prepare` and `emocache extract`"
        )
        raise typer.Exit(1)


def _show_extract(result: dict[str, Any]) -> None:
    table = Table("view", "rows written", "why")
    for name, rows in result["rows"].items():
        taken = result["taken"].get(name)
        table.add_row(
            name,
            counts({**rows, **({"taken from cache.take_from": taken} if taken else {})}),
            escape(result["why"][name]),
        )
    out.print(table)
    untrained(result["untrained"])
    speed = result["speed"]
    if speed["rows"]:
        out.print(
            f"{speed['pictures']:,} pictures, {speed['rows']:,} rows in "
            f"{duration(speed['seconds'])}: {speed['pictures_per_s']:.1f} pictures/s, "
            f"{speed['rows_per_s']:.1f} rows/s; time went to {_shares(speed['parts'])}"
        )
    if not result["networks"] and not result["skipped"]:
        out.print("the cache is up to date; no network was loaded")


@app.command()
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
    val, epochs = result["val_map"], result["epochs"]
    stop = ""
    if result["stopped_early"]:
        waited = epochs - result["best_epoch"]
        stop = f"stopped early at epoch {epochs}, no better on val for {waited} epochs; "
    measured = "unknown" if val is None else f"{100 * val:.1f} %"
    over = mean_over(result["val_labels"], len(result["positives"]))
    if result["resumed"]:
        out.print(f"went on after epoch {result['resumed']} of a fit that was stopped")
    out.print(
        f"{result['head']} fitted on {result['persons']['train']} persons in "
        f"{result['seconds']['fit']:.1f} s: {stop}kept epoch {result['best_epoch']} of {epochs}, "
        f"mAP on val {measured}{over} (N {result['persons']['val']}, seed {result['seed']})"
    )


def mean_over(counted: int, labels: int) -> str:
    """Said beside an mAP that leaves out labels, for they have no positive."""
    return f", mean over {counted} of {labels} labels" if counted < labels else ""


@app.command()
def evaluate(set_: Set = [], file: Params = PARAMS, as_json: Json = False) -> None:
    """Score the trained head on a split, with intervals and the chance level.

    Example: emocache evaluate --set evaluate.split=val
    """
    settings = params.load(file, set_)
    named = any(one.startswith("train.head=") for one in set_)
    say(stages.evaluate(settings, settings.train.head if named else None), as_json, _show_metrics)


def _show_metrics(metrics: dict[str, Any]) -> None:
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
    out.print(
        f"{about['dataset']}, head {about['head']}, seed {about['seed']}, cache key "
        f"{about['cache_key'][:12]}; {about['interval']}"
    )
    for said in (fitted_elsewhere(about), about["note"]):
        if said:
            out.print(f"[yellow]{escape(said)}[/]")
    for gap in about.get("leaks_not_sought", ()):  # results of before have none
        out.print(f"[yellow]{escape(gap)}[/]")
    for weights in about["weights"]:
        out.print("  " + escape(weights), style="yellow" if "UNTRAINED" in weights else "dim")


def _measures(numbers: dict[str, Any]) -> list[tuple[str, str]]:
    """What is worth a line of a split's numbers, by the kind of its labels."""
    from train.metrics import MEASURES

    def ends(key: str, shown: Callable[..., str] = _percent) -> str:
        low, high = (shown(numbers[f"{key}_{end}"]) for end in ("low", "high"))
        return f"{low} to {high}"

    leaked = numbers.get("n_leaked", 0)
    without = f", without {leaked:,} leaked person{'' if leaked == 1 else 's'}"
    lines = []
    if numbers["kind"] == "distribution":
        by = f", {numbers['chance_distribution']} distribution for all"
        for key in MEASURES:
            lines += [
                (key, f"{_four(numbers[key])} ({ends(key, _four)})"),
                (key + by, _four(numbers[f"chance_{key}"])),
            ]
            if f"{key}_without_leaked" in numbers:
                lines.append((key + without, _four(numbers[f"{key}_without_leaked"])))
        return [*lines, *_ratings(numbers)]
    if numbers["kind"] == "single":
        for key in ("accuracy", "balanced_accuracy"):
            said = f"{_percent(numbers[key])} ({ends(key)})"
            lines.append((key.replace("_", " "), said))
        lines.append(
            ("accuracy, most frequent label for all", _percent(numbers["chance_accuracy"]))
        )
    over = mean_over(numbers["classes_with_positive"], numbers["classes"])
    lines += [
        ("mAP", _percent(numbers["mAP"]) + over),
        ("interval", ends("mAP")),
        ("random order", _percent(numbers["random_mAP"])),
        ("chance mAP", _percent(numbers["chance_mAP"])),
        ("mAP, interpolated (VOC)", _percent(numbers["mAP_interpolated"])),
    ]
    for key in ("accuracy", "mAP"):
        if f"{key}_without_leaked" in numbers:
            lines.append((key + without, _percent(numbers[f"{key}_without_leaked"])))
    if "C_F1" in numbers:
        f1 = (_percent(numbers[key]) for key in ("C_F1", "O_F1"))
        lines += [
            ("C-F1, O-F1", ", ".join(f1)),
            ("Jaccard", _percent(numbers["jaccard"])),
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
        low, high = (_two(numbers[f"{key}_{end}"]) for end in ("low", "high"))
        lines.append((name, f"{_two(numbers[key])} ({low} to {high})"))
    lines.append(("mean error, mean of train for all", _two(numbers["chance_VAD_error"])))
    return lines


def _two(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{100 * value:.1f} %"


def _points(value: float | None) -> str:
    return "unknown" if value is None else f"{100 * value:+.2f} points"


def _four(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"


@app.command()
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
            _percent(row["val_mAP"]),
            _percent(row["mAP"]),
            f"{_percent(row['low'])} to {_percent(row['high'])}",
        )
        if row["set"] == "alone" and not row["signal"]:
            blind.append(row["views"][0])
    out.print(table)
    out.print(
        f"N evaluated {found['persons']:,}, N dropped {sum(found['dropped'].values()):,} "
        f"({counts(found['dropped'])}); random order {_percent(found['random_mAP'])}; "
        f"{found['confidence']:.0%} intervals over pictures, seed {found['seed']}; cache key "
        f"{found['cache_key'][:12]}"
    )
    if blind:
        out.print(
            f"[yellow]no signal that a line can see, in the view alone: {', '.join(blind)}[/]"
        )
    if found["absent"]:
        out.print(f"not in the cache: {', '.join(found['absent'])}")
    if found["note"]:
        out.print(f"[yellow]{escape(found['note'])}[/]")


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(metavar="RESULTS_A", help="Where `evaluate` wrote.")],
    b: Annotated[Path, typer.Argument(metavar="RESULTS_B", help="Another such folder.")],
    set_: Set = [],
    file: Params = PARAMS,
    as_json: Json = False,
) -> None:
    """Is one head better than another? Both on the same persons, by shared resamples of pictures.

    Each folder is what `evaluate` left: keep one by `cp -r results results-hugme` before the next
    head is fitted.

    Example: emocache compare results-hugme results-rrla --set evaluate.bootstrap=10000
    """
    say(stages.compare(params.load(file, set_), a, b), as_json, _show_comparison)


def _show_comparison(found: dict[str, Any]) -> None:
    table = Table("measure", "A", "B", "B - A", f"{found['confidence']:.0%} interval", "p")
    least = 2 / (found["resamples"] + 1)
    for row in found["measures"]:
        p = row["p"]
        plain = found["kind"] == "distribution" or row["measure"].endswith("_error")
        shown, apart = (_four, _four) if plain else (_percent, _points)
        table.add_row(
            row["measure"],
            shown(row["a"]),
            shown(row["b"]),
            apart(row["difference"]),
            f"{apart(row['low'])} to {apart(row['high'])}",
            "unknown" if p is None else f"{'at most ' if p <= least else ''}{p:.2g}",
        )
    out.print(table)
    for name in ("a", "b"):
        side = found[name]
        out.print(
            f"{name.upper()}: {escape(side['folder'])}, {side['dataset']}, head {side['head']} "
            f"{side['head_sha256'][:12]}, seed {side['seed']}, cache key "
            f"{side['cache_key'][:12]}; N dropped {side['n_dropped']:,}, N scored by this one only "
            f"{side['n_only']:,}"
        )
    out.print(
        f"N evaluated {found['n_evaluated']:,} of {found['split']}, in {found['n_pictures']:,} "
        f"pictures; {found['resamples']:,} shared resamples of pictures, seed {found['seed']}"
    )
    for note in sorted({found[name]["note"] for name in ("a", "b")} - {""}):
        out.print(f"[yellow]{escape(note)}[/]")


app.command()(cli_studies.sweep)
app.command()(cli_studies.tune)
app.command()(cli_studies.tables)


@app.command()
def report(set_: Set = [], file: Params = PARAMS, as_json: Json = False) -> None:
    """Write results/report.html: metrics, curves, label graphs and persons, in one file.

    Example: emocache report --set report.people=24
    """
    path = stages.report(params.load(file, set_))
    size = path.stat().st_size
    say(
        {"report": str(path), "bytes": size},
        as_json,
        lambda _: out.print(f"{path} ({size / 1e6:.1f} MB)"),
    )


@app.command()
def predict(
    pictures: Annotated[list[Path], typer.Argument(help="Pictures of people.")],
    box: Annotated[
        list[str],
        typer.Option("--box", metavar="X1,Y1,X2,Y2", callback=_boxes, help="A person, in pixels."),
    ] = [],
    folder: Annotated[Path, typer.Option("--out", help="Where overlay pictures go.")] = Path(
        "results/predictions"
    ),
    top: Annotated[int, typer.Option(min=1, help="Emotions shown a person.")] = 5,
    head: Annotated[Path, typer.Option(help="The trained head.")] = stages.RESULTS / "head",
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
    for picture in result["pictures"]:
        if picture["status"] != "ok":
            out.print(f"{escape(picture['picture'])}: {escape(picture['reason'])}")
            continue
        table = Table(
            "person", "face", "objects (attention)", "emotions", title=escape(picture["picture"])
        )
        for number, person in enumerate(picture["people"], 1):
            things = [
                o["name"] + (f" {o['weight']:.2f}" if o["weight"] is not None else "")
                for o in person["objects"]
            ]
            emotions = [f"{name} {p:.2f}" for name, p in list(person["emotions"].items())[:top]]
            table.add_row(
                str(number),
                "yes" if person["head"] else "no",
                ", ".join(things) or "none",
                ", ".join(emotions),
            )
        out.print(table)
        if picture["overlay"]:
            out.print(f"overlay: {escape(picture['overlay'])}")


@app.command()
def demo() -> None:
    """The whole pipeline on made-up scenes: dvc repro, then a prediction on two photographs.

    Example: emocache demo
    """
    from pipelines.evaluation import read_metrics

    settings = params.load(PARAMS)
    if settings.data.name != "demo":
        raise SettingsError(
            f"the demo needs its own settings, and params.yaml has data.name {settings.data.name}: "
            "cp pipelines/profiles/demo.yaml params.yaml"
        )
    # The stages call `emocache`: the one beside this interpreter, activated or not.
    paths = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    done = subprocess.run([sys.executable, "-m", "dvc", "repro"], env={**os.environ, "PATH": paths})
    if done.returncode:
        raise typer.Exit(done.returncode)
    out.rule("demo")
    _show_metrics(read_metrics(stages.RESULTS))
    predict(
        pictures=_photographs(),
        box=[],
        folder=stages.RESULTS / "predictions",
        top=5,
        head=stages.RESULTS / "head",
        set_=[],
        file=PARAMS,
        as_json=False,
    )
    out.print(f"report: {escape((stages.RESULTS / 'report.html').resolve())}")


def _photographs() -> list[Path]:
    """Two photographs of people that ship inside the ultralytics package."""
    from importlib.util import find_spec

    spec = find_spec("ultralytics")
    assert spec is not None and spec.origin is not None
    return [Path(spec.origin).parent / "assets" / name for name in ("bus.jpg", "zidane.jpg")]


def _pairs(result: dict[str, Any]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in result.items())


if __name__ == "__main__":
    main()
