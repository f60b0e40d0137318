import math

import numpy as np
import pytest
import torch

from cache.errors import DataError, SettingsError
from cache.statuses import STATUS
from tests.train import made
from train.data import from_arrays, load
from train.fit import fit, optimizer, pace, predict
from train.heads import get_head


def state(fitted):
    return fitted.model.state_dict()


def test_one_seed_gives_the_same_bits_and_another_does_not():
    features = made.features(persons=64)
    settings = made.settings(epochs=4, hugme={"dropout": 0.3})
    one, two = fit(features, settings), fit(features, settings)
    assert one.history == two.history
    assert all(torch.equal(value, state(two)[name]) for name, value in state(one).items())
    other = fit(features, made.settings(epochs=4, seed=1, hugme={"dropout": 0.3}))
    assert not torch.equal(state(one)["mvec.fc.weight"], state(other)["mvec.fc.weight"])


def test_it_neither_reads_nor_moves_torchs_own_random_numbers():
    features, settings = made.features(persons=64), made.settings(epochs=2)
    torch.manual_seed(1)
    one = fit(features, settings)
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), after)
    two = fit(features, settings)
    assert one.history == two.history


def test_the_best_epoch_on_val_is_kept_and_patience_stops():
    features = made.features(persons=160)
    seen = []
    settings = made.settings(epochs=200, patience=3)
    fitted = fit(features, settings, seen.append)
    assert seen == fitted.history and [row["epoch"] for row in seen] == [*range(1, len(seen) + 1)]
    assert len(seen) == fitted.best_epoch + 3 < 200
    merits = [(row["val_map"], -row["val_loss"]) for row in seen]
    assert fitted.selected_by == "val_map"
    assert fitted.best_epoch == merits.index(max(merits)) + 1
    # The kept weights are those of that epoch: training just so long ends with them.
    short = fit(features, made.settings(epochs=fitted.best_epoch, select="last"))
    assert all(torch.equal(value, state(short)[name]) for name, value in state(fitted).items())


def test_selection_never_sees_test():
    given = made.arrays(persons=160)
    one = fit(from_arrays(**given), made.settings(epochs=5))
    given["targets"][given["splits"] == "test"] = 1
    given["views"]["body"].arrays["features"][given["splits"] == "test"] = 0
    two = fit(from_arrays(**given), made.settings(epochs=5))
    assert one.history == two.history


def test_val_without_a_positive_selects_by_loss():
    given = made.arrays(persons=160)
    given["targets"][given["splits"] == "val"] = 0
    fitted = fit(from_arrays(**given), made.settings(epochs=6))
    assert fitted.selected_by == "val_loss"
    assert all(math.isnan(row["val_map"]) for row in fitted.history)
    losses = [row["val_loss"] for row in fitted.history]
    assert fitted.best_epoch == losses.index(min(losses)) + 1


def test_the_val_loss_alone_can_select():
    fitted = fit(made.features(persons=160), made.settings(epochs=30, select="val_loss", lr=1e-2))
    losses = [row["val_loss"] for row in fitted.history]
    assert fitted.selected_by == "val_loss"
    assert fitted.best_epoch == losses.index(min(losses)) + 1
    merits = [row["val_map"] for row in fitted.history]
    assert fitted.best_epoch != merits.index(max(merits)) + 1  # else this would show nothing


def test_two_val_persons_are_enough():
    given = made.arrays(persons=16)
    given["splits"][:] = ["train"] * 12 + ["val"] * 2 + ["test"] * 2
    assert fit(from_arrays(**given), made.settings(epochs=3)).history


def test_an_empty_train_or_val_is_refused_with_what_mends_it():
    given = made.arrays(persons=16)
    given["views"]["body"].status[given["splits"] == "val"] = STATUS["unreadable"]
    features = from_arrays(**given)
    with pytest.raises(DataError, match=r"no val .* \(4 body: unreadable\).*train\.select to last"):
        fit(features, made.settings())
    fitted = fit(features, made.settings(epochs=2, select="last"))
    assert fitted.selected_by == "last" and fitted.best_epoch == 2
    assert math.isnan(fitted.history[0]["val_loss"])
    given["splits"][:] = "test"
    with pytest.raises(DataError, match="no train person"):
        fit(from_arrays(**given), made.settings())


def test_a_diverging_run_names_the_setting():
    with pytest.raises(SettingsError, match=r"train\.lr"):
        fit(made.features(persons=64), made.settings(lr=1e38, epochs=20))


def test_scores_do_not_depend_on_who_is_scored_beside():
    features = made.features(persons=64)
    model = fit(features, made.settings(epochs=2)).model
    rows = features.rows()
    alone = [predict(model, features, row[None])[0] for row in rows]
    np.testing.assert_allclose(predict(model, features, rows), alone, rtol=1e-5)
    assert predict(model, features, rows[:0]).shape == (0, 4)


@pytest.mark.parametrize("head", ["hugme", "linear"])
def test_blocks_from_a_file_give_the_same_bits(head, tmp_path):
    made.write_cache(tmp_path, made.arrays(persons=160))
    settings = made.settings(head=head, epochs=4, standardise=True, hugme={"dropout": 0.3})
    views = get_head(head).views(settings)
    held, mapped = load(tmp_path, views), load(tmp_path, views, memory=1e-5)
    assert 0 < mapped.block < len(mapped.rows("train"))
    one, two = fit(held, settings), fit(mapped, settings)
    assert one.history == two.history
    assert all(torch.equal(value, state(two)[name]) for name, value in state(one).items())
    rows = held.rows("test")
    assert np.array_equal(predict(one.model, held, rows), predict(two.model, mapped, rows))


# ---------------------------------------------------------------------------- stops and restarts


class Killed(Exception):
    pass


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": "sgd", "lr": 0.05},
        {"schedule": "cosine", "warmup": 2, "hugme": {"dropout": 0.3}},
    ],
    ids=["adamw", "sgd", "cosine and dropout"],
)
def test_a_killed_fit_goes_on_to_the_same_end(changes, tmp_path):
    """To the last bit: parameters, history and the kept epoch."""
    features = made.features(persons=160)
    settings = made.settings(epochs=7, save_every=0, **changes)
    whole = fit(features, settings)

    def killed(row):
        if row["epoch"] == 4:
            raise Killed

    with pytest.raises(Killed):
        fit(features, settings, killed, tmp_path / "resume.pt")
    assert (tmp_path / "resume.pt").exists()
    seen = []
    again = fit(features, settings, seen.append, tmp_path / "resume.pt")
    assert again.history == whole.history == seen and again.best_epoch == whole.best_epoch
    assert (whole.resumed, again.resumed) == (0, 3)  # the fourth was not saved yet
    for name, value in whole.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value), name
    assert not (tmp_path / "resume.pt").exists()


def test_another_fit_and_a_damaged_file_begin_again(tmp_path):
    features, file = made.features(persons=160), tmp_path / "resume.pt"

    def killed(row):
        if row["epoch"] == 2:
            raise Killed

    with pytest.raises(Killed):
        fit(features, made.settings(epochs=3, save_every=0), killed, file)
    other = made.settings(epochs=3, save_every=0, lr=1e-2)
    assert fit(features, other, resume=file).history == fit(features, other).history
    file.write_bytes(b"no such thing")
    assert fit(features, other, resume=file).history == fit(features, other).history


def test_the_learning_rate_rises_and_falls():
    settings = made.settings(epochs=4, warmup=1, schedule="cosine")
    found = [pace(step, 10, settings) for step in range(41)]
    assert found[:10] == pytest.approx([(n + 1) / 10 for n in range(10)])
    assert found[10] == 1 and found[25] == pytest.approx(0.5) and found[40] == 0
    assert [pace(step, 10, made.settings()) for step in (0, 39)] == [1, 1]


def test_sgd_by_hand():
    """v <- m v + g + decay w;  w <- w - lr v."""
    layer = torch.nn.Linear(3, 1, bias=False)
    w, v = layer.weight.detach().clone(), torch.zeros(1, 3)
    settings = made.settings(optimizer="sgd", momentum=0.9, lr=0.1, weight_decay=0.01)
    sgd = optimizer([{"params": list(layer.parameters())}], settings, torch.device("cpu"))
    for x in (torch.tensor([1.0, 2, 3]), torch.tensor([0.5, 0, -1])):
        sgd.zero_grad()
        layer(x).sum().backward()
        sgd.step()
        v = 0.9 * v + x + 0.01 * w
        w = w - 0.1 * v
    torch.testing.assert_close(layer.weight.detach(), w)
