"""What is gathered for a report: the scores that were measured, and nothing that no one looked
for."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import entropy
from sklearn.metrics import f1_score

from pipelines.evaluation import measure
from pipelines.overlay import PersonMark
from pipelines.report import page as pages
from pipelines.report.data import _answer, choose, divergences, extremes, read_results
from pipelines.results import Results
from tests.pipelines.report_data import provenance, results, scores, share_scores
from train.explain import Explanation, Faces, Objects
from train.settings import Evaluate


def test_persons_are_drawn_by_seed_one_a_picture_as_long_as_there_are(tmp_path):
    test = scores()  # two persons a picture
    places = choose(test, 200, 0)
    assert len(np.unique(test.picture_rows[places])) == 200
    assert (np.diff(test.person_rows[places]) > 0).all()
    assert len(choose(test, 250, 0)) == 250 and len(choose(test, 500, 0)) == 400
    np.testing.assert_array_equal(places, choose(test, 200, 0))
    assert (choose(test, 12, 0) != choose(test, 12, 1)).any()


@pytest.mark.parametrize(
    ("persons", "ranks"),
    [
        (400, [0, 1, 199, 200, 398, 399]),
        (401, [0, 1, 200, 201, 399, 400]),
        (7, [0, 1, 3, 4, 5, 6]),
        (6, [0, 1, 2, 3, 4, 5]),
        (4, [0, 1, 2, 3]),
        (1, [0]),
    ],
)
def test_the_best_the_median_and_the_worst_are_chosen_by_kl(persons, ranks):
    test = share_scores(persons=persons)
    kl = divergences(test)
    np.testing.assert_allclose(kl, entropy(test.distribution, test.y_score, axis=1), rtol=1e-9)
    assert extremes(test).tolist() == np.argsort(kl)[ranks].tolist()
    alike = replace(test, y_score=test.distribution)  # of equal ones the first
    assert extremes(alike).tolist() == ranks


def test_decisions_are_those_of_the_metrics_even_at_a_threshold(tmp_path):
    """Thresholds are scores of val: with the same scores in both splits, each label has a person
    whose score is its threshold, and one lost digit in the file would take or give that label."""
    test = scores()
    val = replace(test, split="val")
    found = measure(test, Evaluate(bootstrap=100), provenance(), val=val)
    found.write(Results(results(tmp_path)))  # for the curves
    files = read_results(Results(tmp_path))
    limits = {row["label"]: row["threshold"] for row in files["per_class"]}
    back = files["scores"]
    equal = back.y_score == np.array([limits[label] for label in back.labels])
    assert equal.any(axis=0).all()
    answers = [_answer(back, at, "multi", limits) for at in range(len(back.person_rows))]
    predicted = np.array([[label in a["predicted"] for label in back.labels] for a in answers])
    true = np.array([[label in a["true"] for label in back.labels] for a in answers])
    np.testing.assert_array_equal(true, test.y_true > 0)
    for average in ("micro", "macro"):
        oracle = f1_score(true, predicted, average=average, zero_division=0)
        assert files["metrics"]["test"][f"F1_{average}"] == pytest.approx(oracle, rel=1e-12)


def seen(**views) -> Explanation:
    """Of one person, by a head that reads nothing beside what is given."""
    absent = dict.fromkeys(("attention", "objects", "faces"))
    rows, box = np.array([7]), np.array([[10.0, 20, 110, 220]])
    some = {**absent, **views}
    return Explanation(
        ("a", "b"), ("cup", "dog"), rows, rows, box, np.zeros((1, 2)), **some, graphs={}
    )


def test_a_mark_has_what_the_head_saw():
    mark = PersonMark.seen(seen(), 0)
    assert (mark.box, mark.face, list(mark.objects)) == ((10, 20, 110, 220), None, [])
    face = np.array([[30.0, 20, 60, 50]])
    things = {
        "objects": Objects(
            boxes=np.arange(12.0).reshape(1, 3, 4),
            labels=np.array([[0, 1, 0]]),
            scores=np.array([[0.5, 0.75, 0]]),
            mask=np.array([[True, True, False]]),
        ),
    }
    mark = PersonMark.seen(seen(faces=Faces(face, np.array([True])), **things), 0)
    assert mark.face == (30, 20, 60, 50)
    assert [(one.name, one.score, one.weight) for one in mark.objects] == [
        ("cup", 0.5, None),
        ("dog", 0.75, None),
    ]
    weighed = seen(attention=np.array([[0.25, 0.75, 0]]), **things)
    assert [one.name for one in PersonMark.seen(weighed, 0).objects] == ["dog", "cup"]
    assert PersonMark.seen(seen(faces=Faces(face, np.array([False]))), 0).face is None


def test_of_views_that_the_head_does_not_read_nothing_is_said(data, tmp_path):
    bare = PersonMark(data.persons[0].mark.box)
    person = replace(data.persons[0], mark=bare, notes=[])
    text = pages.write(
        replace(data, views=("body", "scene"), persons=[person]), tmp_path / "report.html"
    ).read_text()
    for word in ("face", "No object found", "objects"):
        assert word not in text[text.index('id="persons"') :], word
    assert 'picture with the person&#39;s box"' in text
    looked = pages.write(replace(data, persons=[person]), tmp_path / "report.html").read_text()
    assert "no face found; objects: none" in looked and "No object found." in looked
