import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck

from cache.errors import DataError
from tests.train import made
from train.data import Batch, from_arrays
from train.head import LabelHead, Output, SquaredHead

LOGITS = torch.tensor([[0.0, math.log(3)]])  # sigmoid: 1/2, 3/4; softmax: 1/4, 3/4


def labelled(*target: list[float]) -> Batch:
    """Persons of whom only these label vectors count."""
    batch = made.features(persons=16).batch(torch.arange(len(target)))
    return replace(batch, target=torch.tensor(target))


def plain(kind: str, of: type[LabelHead] = LabelHead) -> LabelHead:
    return of(made.settings(), widths={"body": made.WIDTH}, labels=2, kind=kind)


class Linear(LabelHead):
    """The least head there is: z = W x on `body`, and the labels' view read beside it."""

    def __init__(self, settings, **shapes):
        super().__init__(settings, **shapes)
        self.linear = nn.Linear(self.widths["body"], self.labels)
        self.learned = None

    @staticmethod
    def views(settings):
        return ("body", "labels")

    def logits(self, batch):
        return self.linear(self.see("body", batch))

    def learn(self, features, rows):
        self.learned = rows


def test_many_labels_get_a_sigmoid_and_the_cross_entropy_of_each():
    head = plain("multi")
    scores = head.scores(LOGITS)
    torch.testing.assert_close(scores, torch.tensor([[0.5, 0.75]]))
    # -ln 1/2 and -ln 1/4, their mean
    found = head.loss(Output(scores, LOGITS), labelled([1.0, 0.0]))
    assert found.item() == pytest.approx(1.5 * math.log(2))


@pytest.mark.parametrize("kind", ["single", "distribution"])
@pytest.mark.parametrize("of", [LabelHead, SquaredHead])
def test_one_label_and_shares_of_labels_get_a_softmax_and_the_cross_entropy(kind, of):
    head = plain(kind, of)
    scores = head.scores(LOGITS)
    torch.testing.assert_close(scores, torch.tensor([[0.25, 0.75]]))
    found = head.loss(Output(scores, LOGITS), labelled([1.0, 0.0]))
    assert found.item() == pytest.approx(math.log(4))
    half = head.loss(Output(scores, LOGITS), labelled([0.5, 0.5]))
    assert half.item() == pytest.approx((math.log(4) + math.log(4 / 3)) / 2)


def test_squared_error_of_many_labels_reads_the_logits_by_the_labels_weights():
    """1/4 of (1/2 - 1)^2 and 3/4 of 2^2."""
    head = plain("multi", SquaredHead)
    torch.testing.assert_close(head.weights, torch.tensor([0.5, 0.5]))  # before it has learned
    head.weights.copy_(torch.tensor([0.25, 0.75]))
    logits = torch.tensor([[0.5, 2.0]])
    assert head.scores(logits) is logits
    found = head.loss(Output(torch.full_like(logits, 9.0), logits), labelled([1.0, 0.0]))
    assert found.item() == pytest.approx(0.25 * 0.25 + 0.75 * 4)


def test_the_labels_weights_come_from_the_rows_that_it_learns():
    """Label 0 in all, 1 in half of them, 2 and 3 in none."""
    features = made.features(persons=16)
    features.target[:] = 1
    features.target[:2] = torch.tensor([[1.0, 1, 0, 0], [1.0, 0, 0, 0]])
    head = SquaredHead(made.settings(), widths={}, labels=4, kind="multi")
    head.learn(features, torch.tensor([0, 1]))
    by_hand = torch.tensor([1 / math.log(2.2), 1 / math.log(1.7), *[1 / math.log(1.2)] * 2])
    torch.testing.assert_close(head.weights, by_hand / by_hand.sum())


def test_setting_up_measures_and_learns_the_rows_given_and_no_others():
    features = made.features(persons=16)
    rows = features.rows("train")
    head = Linear.setup(made.settings(standardise=True), features, rows)
    assert head.widths == {"body": made.WIDTH}  # the labels' view is not one of the persons
    assert head.learned is rows
    seen = features.views["body"]["features"][rows].float()
    torch.testing.assert_close(head.see.body_mean, seen.mean(0))
    batch = features.batch(rows)
    output = head(batch)
    standard = (seen - seen.mean(0)) / seen.std(0, correction=0)
    torch.testing.assert_close(output.logits, head.linear(standard))
    torch.testing.assert_close(output.scores, output.logits.sigmoid())
    assert output.attention is None and head.graphs() == {}


def test_a_head_can_be_always_standardised():
    class Always(Linear):
        standardised = True

    features = made.features(persons=16)
    rows = features.rows("train")
    for of, names in ((Linear, ()), (Always, ("body",))):
        assert of.setup(made.settings(standardise=False), features, rows).see.names == names


def test_a_view_that_was_not_loaded_is_named():
    given = made.arrays(persons=16)
    del given["views"]["labels"]
    features = from_arrays(**given)
    with pytest.raises(DataError, match="views labels too"):
        Linear.setup(made.settings(), features, features.rows("train"))


@pytest.mark.parametrize("kind", ["multi", "single"])
@pytest.mark.parametrize("of", [LabelHead, SquaredHead])
def test_gradients(kind, of):
    torch.manual_seed(0)
    head = plain(kind, of).double()
    batch = labelled([1.0, 0.0], [0.0, 1.0])
    batch = replace(batch, target=batch.target.double())
    logits = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda z: head.loss(Output(head.scores(z), z), batch), (logits,))
    assert gradcheck(head.scores, (logits,))
