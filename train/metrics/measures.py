"""What is known of each measure besides its value: how it is called and shown, which way is better,
and by which one heads are compared."""

from dataclasses import dataclass

from train.labels import LabelKind


@dataclass(frozen=True)
class Measure:
    """name: as in metrics.json; title, formula: for people; more: whether more is better; percent:
    whether it is shown in per cent."""

    name: str
    title: str
    formula: str = ""
    more: bool = True
    percent: bool = False


MEASURES = {
    one.name: one
    for one in (
        Measure("mAP", "mAP", "mean of AP over the labels", percent=True),
        Measure("accuracy", "accuracy", "share of the persons whose label is found", percent=True),
        Measure("balanced_accuracy", "balanced accuracy", "mean recall", percent=True),
        Measure("macro_F1", "macro F1", "mean over the labels of 2 P R / (P + R)", percent=True),
        Measure("C_F1", "C-F1", "2 CP CR / (CP + CR)", percent=True),
        Measure("O_F1", "O-F1", "2 OP OR / (OP + OR)", percent=True),
        Measure("chebyshev", "Chebyshev", "max |d − p|", more=False),
        Measure("clark", "Clark", "√ Σ (d − p)² / (d + p)²", more=False),
        Measure("canberra", "Canberra", "Σ |d − p| / (d + p)", more=False),
        Measure("kl", "KL divergence", "Σ d ln (d / p), in nats", more=False),
        Measure("cosine", "Cosine", "d·p / (|d| |p|)"),
        Measure("intersection", "Intersection", "Σ min(d, p)"),
        Measure("VAD_error", "error of VAD", "mean |v − r|", more=False),
    )
}

# Heads are compared by one measure, by what the labels are.
MAIN: dict[LabelKind, Measure] = {
    "multi": MEASURES["mAP"],
    "single": MEASURES["accuracy"],
    "distribution": MEASURES["kl"],
}


def measure(name: str) -> Measure:
    """Of a name as it stands in results: `val_mAP` and `mAP_low` are mAP. A measure that is not
    known is shown as it is."""
    for known in (name, name.removeprefix("val_"), name.rpartition("_")[0]):
        if known in MEASURES:
            return MEASURES[known]
    return Measure(name, name.replace("_", " "), more=not name.endswith("error"))
