"""The pictures of the papers' tables, from the numbers in tables.json: what each part of a head is
worth (HugMe's Table 3, RRLA's Table 4), and how HugMe depends on beta and lambda (its Fig. 2)."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.studies import paper
from pipelines.studies.page import Section
from pipelines.wording import Scale
from train.metrics.measures import measure

if TYPE_CHECKING:  # loaded when a figure is drawn
    from matplotlib.figure import Figure

ABLATIONS = "What each part is worth"
SENSITIVITY = "Figure 2: how HugMe depends on β and λ"


def sections(result: Mapping[str, Any]) -> list[Section]:
    """What there is to see in these numbers, the content of tables.json."""
    found = []
    if figures := [ablation(result, head) for head in _ablated(result)]:
        found.append(Section(ABLATIONS, figures=figures))
    if (map_ := sensitivity(result)) is not None:
        found.append(Section(SENSITIVITY, figures=[map_]))
    return found


def ablation(result: Mapping[str, Any], head: str) -> tuple[str, "Figure"]:
    """Caption and figure of one head: the difference of each row without a part to the whole."""
    from pipelines.studies import figures

    rows = _ablated(result)[head]
    what = measure(rows[0]["measure"])
    factor = Scale.of(what.name).factor
    drawn = []
    for row in rows:
        value, low, high = (_scaled(row["difference"][end], factor) for end in ENDS)
        drawn.append((f"without {row['without']}", value, low, high))
    drawn.sort(key=lambda row: (math.isnan(row[1]), row[1] if what.more else -row[1]))
    unit = ", points" if what.percent else ""
    caption = (
        f"{head} without each of its parts, less the whole: {what.title} on {result['split']}, "
        f"{_seeds(result)}, with {result['confidence']:.0%} intervals over resamples of "
        f"the same pictures; N {rows[0]['n_evaluated']:,}. "
        f"{'Left' if what.more else 'Right'} of 0 the part helps. Filled: the interval leaves out "
        "0, better without it in blue and worse in red."
    )
    return caption, figures.differences(drawn, f"{what.title}{unit}: difference", what.more)


def sensitivity(result: Mapping[str, Any]) -> tuple[str, "Figure"] | None:
    """Caption and map of the main measure over beta and lambda; None where no point has a value."""
    from pipelines.studies import figures

    points, cell = result["figure2"], result["cell"]
    if cell is None:
        return None
    main = measure(cell["measure"])
    scale = Scale.of(main.name)
    betas, lambdas = (sorted({point[name] for point in points}) for name in ("beta", "lambda"))
    grid = np.full((len(lambdas), len(betas)), np.nan)
    for point in points:
        at = lambdas.index(point["lambda"]), betas.index(point["beta"])
        grid[at] = _scaled(point["value"], scale.factor)
    beta, lambda_c = paper.CHOSEN
    framed = beta in betas and lambda_c in lambdas
    mark = (lambdas.index(lambda_c), betas.index(beta)) if framed else None
    x, y = ([f"{step:g}" for step in steps] for steps in (betas, lambdas))
    heading = f"{main.name} on {result['split']}{scale.unit}"
    figure = figures.heat_map(grid, ("β", x), ("λ", y), heading, mark, main.more)
    caption = (
        f"HugMe over β, the weight of its classifier against the label view, and λ, that of L_C "
        f"against L_DC; one fit a cell, seed {result['seeds'][0]}, N {cell['n_evaluated']:,}. "
        f"{'The frame is the paper’s choice. ' if framed else ''}A cell's "
        f"{result['confidence']:.0%} interval over pictures is about ± "
        f"{scale.number(cell['half_interval'], unit=scale.unit)}."
    )
    return caption, figure


ENDS = ("value", "low", "high")


def _ablated(result: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """Rows without a part, by head, where there is one with a difference to the whole."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in result["rows"]:
        if row["without"] and row["difference"]["value"] is not None:
            found.setdefault(row["head"], []).append(row)
    return found


def _scaled(value: float | None, factor: float) -> float:
    return math.nan if value is None else factor * value


def _seeds(result: Mapping[str, Any]) -> str:
    seeds: Sequence[int] = result["seeds"]
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"mean of {len(seeds)} seeds"
