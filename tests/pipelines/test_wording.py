"""pipelines.wording: one row for each thing that people are told in numbers."""

import math
import subprocess
import sys

import pytest

from pipelines import wording
from pipelines.wording import MINUS, NONE, PERCENT, PLAIN, Scale
from train.metrics.measures import MAIN


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (wording.percent(0.3147), "31.5 %"),
        (wording.percent(0.95, 0, unit=""), "95"),
        (wording.percent(None), "unknown"),
        (wording.percent(math.nan, unit="", missing=NONE), "–"),
        (wording.percent(math.inf, missing=""), ""),
        (wording.percent(-0.0123, 2, signed=True, minus=MINUS), "−1.23 %"),
        (wording.points(0.0123), "+1.23 points"),
        (wording.points(-0.0123), "-1.23 points"),
        (wording.points(None), "unknown"),
        (wording.number(1.2345), "1.23"),
        (wording.number(1.2345, 4), "1.2345"),
        (wording.number(-1.2345, 2, signed=True, minus=MINUS), "−1.23"),
        (wording.number(None, 4, missing=NONE), "–"),
        (wording.number(0.0), "0.00"),
        (wording.thousands(12345.4), "12,345"),
        (PERCENT.number(0.31469), "31.47"),
        (PERCENT.number(0.31469, unit=PERCENT.unit), "31.47 %"),
        (PERCENT.number(-0.002, signed=True, minus=MINUS), "−0.20"),
        (PERCENT.number(None), ""),
        (PLAIN.number(0.31469), "0.3147"),
        (PERCENT.interval(0.2, 0.3), "20.00 to 30.00"),
        (PLAIN.interval(-0.02, 0.3, minus=MINUS), "−0.0200 to 0.3000"),
        (PLAIN.interval(math.nan, 0.3), ""),
        (PLAIN.interval(0.3, None), ""),
        (wording.cell(0.000123456789), "0.00012346"),
        (wording.cell(12345678), "12345678"),
        (wording.cell(["scene"]), "['scene']"),
        (wording.cell(None), ""),
        (wording.size(12_345_678), "12.3 MB"),
        (wording.size(1e9), "1000.0 MB"),
        (wording.size(12_345_678_901), "12.35 GB"),
        (wording.duration(89.4), "89 s"),
        (wording.duration(90), "2 min"),
        (wording.counts({"ok": 1200, "no_face": 3}), "1,200 ok, 3 no_face"),
        (wording.counts({}), "none"),
        (wording.shares({"a": 1, "b": 3, "c": 0, "d": 0, "e": 0}), "b 75%, a 25%, c 0%, d 0%"),
        (wording.shares({}), ""),
        (wording.shares({"a": 0.0}), "a 0%"),
    ],
)
def test_numbers_for_people(found, expected):
    assert found == expected


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        ("mAP", PERCENT),
        ("val_mAP", PERCENT),
        ("mAP_low", PERCENT),
        ("C_F1", PERCENT),
        ("accuracy", PERCENT),
        ("kl", PLAIN),
        ("val_kl", PLAIN),
        ("VAD_error", PLAIN),
        ("val_loss", PLAIN),
        ("of another house", PLAIN),
    ],
)
def test_the_scale_of_a_measure(name, scale):
    assert Scale.of(name) is scale


def test_the_measures_that_heads_are_compared_by():
    scales = {kind: Scale.of(one.name) for kind, one in MAIN.items()}
    assert scales == {"multi": PERCENT, "single": PERCENT, "distribution": PLAIN}


def test_an_untrained_network_is_named_in_one_sentence():
    said = wording.untrained("depth: made")
    assert said.startswith("UNTRAINED depth: made runs on random weights") and "." not in said


def test_nothing_heavy_is_loaded_for_words():
    code = "import sys, pipelines.wording; print({'numpy', 'scipy', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
