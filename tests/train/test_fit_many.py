import numpy as np
import pytest
import torch

from cache.errors import DataError, SettingsError
from tests.train import made
from train import fit_many as module
from train import group
from train.data import from_arrays
from train.fit import fit, predict
from train.fit_many import fit_many, groups
from train.heads import closed, names
from train.stack import Stack, Unstackable
from train.timing import Epoch

# Views and settings under which the made data fit every head.
OWN = {
    "rrla": {"rrla": {"words": "labels", "regions": "features", "heads": 2, "graph_width": 16}},
    "ml_gcn": {"ml_gcn": {"words": "labels", "hidden": 16}},
    "mlp": {"mlp": {"hidden": [16]}},
    "kosti": {"kosti": {"hidden": 16}},
    "caer_net": {"caer_net": {"hidden": 16}},
    "helo": {"helo": {"width": 16, "tokens": [3, 2], "heads": 2, "hidden": 16, "steps": 10}},
}
STACKED = sorted(name for name in names() if not closed(name))


def asked(head="hugme", seed=0, lr=3e-3, **changes):
    own = {key: dict(value) for key, value in OWN.get(head, {}).items()}
    dropout = changes.pop("dropout", None)
    if dropout is not None:
        own.setdefault(head, {})["dropout"] = dropout
    own.setdefault(head, {}).update(changes.pop("own", {}))
    # AdamW makes whole steps of gradients that are nothing but rounding, as of Kosti's bias before
    # BatchNorm, and those differ.
    descent = {"optimizer": "sgd"} if head in ("kosti", "rrla") else {}
    base = {"epochs": 5, "patience": 2, "together": 8, **descent}
    return made.settings(head=head, seed=seed, lr=lr, **{**base, **changes}, **own)


def same(features, settings, done):
    """That a head fitted in step is the one fitted alone: its epochs, and what it says."""
    alone, tolerance = fit(features, settings), 5e-5
    assert done.fitted.best_epoch == alone.best_epoch
    assert done.fitted.selected_by == alone.selected_by
    for row, other in zip(done.fitted.history, alone.history, strict=True):
        ours, theirs = dict(row), dict(other)
        # Two scores apart by rounding may change places, and mAP knows nothing but places.
        assert ours.pop("val_map") == pytest.approx(theirs.pop("val_map"), abs=0.02, nan_ok=True)
        assert ours == pytest.approx(theirs, abs=tolerance, nan_ok=True)
    rows = features.rows("test")
    ours, theirs = (predict(one.model, features, rows) for one in (done.fitted, alone))
    assert abs(ours - theirs).max() < tolerance
    assert list(done.fitted.model.state_dict()) == list(alone.model.state_dict())


@pytest.mark.parametrize("head", STACKED)
def test_each_of_many_is_the_head_fitted_alone(head):
    """Own seed, order of persons, rate, decay and patience."""
    features = made.features(persons=160)
    many = [
        asked(head, 0, 1e-3),
        asked(head, 1, 3e-3, weight_decay=0.1),
        asked(head, 2, 1e-2, patience=1),
        asked(head, 2, 3e-3, schedule="cosine", warmup=1, epochs=3),
    ]
    found = {done.number: done for done in fit_many(features, many)}
    assert sorted(found) == [0, 1, 2, 3] and {d.together for d in found.values()} == {4}
    for number, settings in enumerate(many):
        same(features, settings, found[number])


@pytest.mark.parametrize("head", ["hugme", "helo", "mlp", "kosti", "caer_net"])
def test_each_drops_what_it_alone_would_drop(head):
    features = made.features(persons=96)
    many = [asked(head, 0, dropout=0.0), asked(head, 1, dropout=0.5), asked(head, 1, dropout=0.2)]
    for done in fit_many(features, many):
        assert done.together == 3
        same(features, many[done.number], done)


def test_beta_and_lambda_are_each_heads_own():
    features = made.features(persons=96)
    many = [asked(own={"beta": b, "lambda_c": c}) for b, c in ((0, 0.8), (0.5, 0), (1, 1))]
    assert len(groups(many)) == 1
    for done in fit_many(features, many):
        same(features, many[done.number], done)


WITHOUT = [
    *([part] for part in ("objects", "scene", "head", "depth", "body")),
    *([part] for part in ("cooccurrence", "similarity", "darn", "hegl")),
    ["objects", "similarity", "body"],
    ["cooccurrence", "similarity"],
    [],
]


@pytest.mark.parametrize("changes", [{}, {"standardise": True, "dropout": 0.3}])
def test_ablations_go_in_step_and_each_is_the_head_without_its_part(changes):
    """Masks of views and switches of graphs, in one shape; what comes out has its own shape."""
    features = made.features(persons=96)
    many = [asked(seed=n % 4, own={"without": w}, **changes) for n, w in enumerate(WITHOUT)]
    assert groups(many) == [list(range(len(many)))]
    many = [one.model_copy(update={"together": 16}) for one in many]
    for done in fit_many(features, many):
        assert done.together == len(many)
        same(features, many[done.number], done)


def test_equal_seeds_see_one_batch_and_come_to_the_same(monkeypatch):
    features = made.features(persons=96)
    seen = []
    losses = Stack.losses
    monkeypatch.setattr(
        Stack, "losses", lambda self, b, shared: seen.append(shared) or losses(self, b, shared)
    )
    many = [asked(lr=lr, standardise=True) for lr in (1e-3, 1e-2)]
    for done in fit_many(features, many):
        same(features, many[done.number], done)
    assert set(seen) == {True}


def test_sgd_has_each_heads_momentum_and_the_last_epoch_can_be_kept():
    features = made.features(persons=96)
    many = [
        asked(optimizer="sgd", lr=0.05, momentum=m, seed=s, select="last")
        for m, s in ((0.9, 0), (0, 1))
    ]
    for done in fit_many(features, many):
        assert len(done.fitted.history) == 5 and done.fitted.selected_by == "last"
        same(features, many[done.number], done)


def test_other_shapes_go_in_other_groups():
    many = [
        asked(lr=1e-3),
        asked(own={"hidden": [32, 8]}),
        asked(lr=2e-3, seed=4),
        asked("mlp"),
        asked("mlp", dropout=0.1),
        asked(batch=16),
        asked(optimizer="sgd"),
    ]
    assert groups(many) == [[0, 2], [1], [3, 4], [5], [6]]


def test_many_of_one_seed_stay_among_themselves():
    seeds = [0, 0, 1, 0, 2, 0, 0]
    many = [asked(seed=seed, lr=1e-3 * (n + 1)) for n, seed in enumerate(seeds)]
    assert groups(many) == [[0, 1, 3, 5, 6], [2, 4]]
    assert groups([*many[:2], many[3]]) == [[0, 1, 2]]


def test_all_come_whatever_their_groups_and_limits():
    features = made.features(persons=96)
    many = [asked(seed=s, together=2, epochs=2) for s in range(5)] + [asked("linear")] * 2
    found = list(fit_many(features, many))
    assert sorted(done.number for done in found) == list(range(7))
    assert [done.together for done in found] == [2, 2, 2, 2, 1, 1, 1]
    for done in found:
        same(features, many[done.number], done)


def test_one_that_fails_leaves_the_others_alone():
    features = made.features(persons=96)
    many = [asked(lr=1e-3), asked(lr=1e30), asked(lr=2e-3)]
    found = {done.number: done for done in fit_many(features, many)}
    assert isinstance(found[1].fitted, SettingsError) and "train.lr" in str(found[1].fitted)
    for number in (0, 2):
        same(features, many[number], found[number])


@pytest.mark.parametrize("together", [1, 8])
def test_watch_ends_a_head_where_it_says(together):
    features = made.features(persons=96)
    many = [asked(seed=s, together=together, patience=9) for s in range(3)]
    seen = []

    def watch(number, row):
        seen.append((number, row["epoch"]))
        return number == 1 and row["epoch"] == 2

    found = {done.number: done for done in fit_many(features, many, watch)}
    assert [found[n].dropped for n in range(3)] == [False, True, False]
    assert [len(found[n].fitted.history) for n in range(3)] == [5, 2, 5]
    assert sorted(seen) == [(n, e) for n in range(3) for e in range(1, 3 if n == 1 else 6)]
    same(features, many[2], found[2])


def test_what_cannot_be_stacked_goes_one_after_another(monkeypatch, caplog):
    features = made.features(persons=96)
    from train.heads.mlp import Mlp

    built = Mlp.__init__

    def with_torchs_own(self, settings, **shapes):
        built(self, settings, **shapes)
        self.net = torch.nn.Sequential(torch.nn.Dropout(0.1), *self.net)

    monkeypatch.setattr(Mlp, "__init__", with_torchs_own)
    many = [asked("mlp", seed=s, epochs=1) for s in range(2)]
    with caplog.at_level("INFO", "train"):
        assert [done.together for done in fit_many(features, many)] == [1, 1]
    assert "train.layers.dropout" in caplog.text


def test_a_head_that_looks_into_its_numbers_goes_alone(monkeypatch, caplog):
    features = made.features(persons=96)
    from train.heads.mlp import Mlp

    plain = Mlp.logits

    def peeking(self, batch):
        logits = plain(self, batch)
        return logits * 2 if float(logits.detach().sum()) > 1e9 else logits

    monkeypatch.setattr(Mlp, "logits", peeking)
    many = [asked("mlp", seed=s, epochs=1) for s in range(2)]
    with caplog.at_level("INFO", "train"):
        assert [done.together for done in fit_many(features, many)] == [1, 1]
    assert "mlp: one head after another" in caplog.text


def test_a_parameter_without_a_part_in_the_loss_is_named():
    features = made.features(persons=96)
    from train.heads import get_head

    models = []
    for _ in range(2):
        model = get_head("mlp").setup(asked("mlp"), features, features.rows("train"))
        model.idle = torch.nn.Parameter(torch.zeros(3))
        models.append(model)
    stack = Stack(models, [torch.Generator(), torch.Generator()])
    with pytest.raises(Unstackable, match="idle"):
        stack.descend(features.batch(features.rows("train")[:4]), shared=True)


def test_memory_decides_how_many_go_at_once(monkeypatch):
    features = made.features(persons=96)
    many = [asked(seed=s, epochs=1, together=8) for s in range(6)]
    cost = module.Group(features, many[:4]).cost()
    parameters = sum(p.numel() for p in fit(features, many[0]).model.parameters())
    assert cost > group.COPIES * 4 * parameters
    for room, expected in ((2.5 * cost, [2] * 6), (0.1 * cost, [1] * 6), (99 * cost, [6] * 6)):
        monkeypatch.setattr(module, "_room", lambda device, room=room: room)
        assert [done.together for done in fit_many(features, many)] == expected


def timed(monkeypatch, alone, of_count):
    """As if a step took so long: alone, and in step by how many go."""
    monkeypatch.setattr(module, "epoch_seconds", lambda features, settings: Epoch(1, 0.0, alone))
    monkeypatch.setattr(
        module.Group,
        "seconds",
        lambda self: Epoch(1, 0.0, len(self.numbers) * float(of_count(len(self.numbers)))),
    )


@pytest.mark.parametrize(
    ("of_count", "expected"),
    [
        (lambda k: 0.8, [1] * 9),  # not clearly less
        (lambda k: 0.5, [4, 4, 4, 4, 4, 4, 4, 4, 1]),  # eight gain nothing over four
        (lambda k: 1 / k, [9] * 9),
        (lambda k: 1 / k if k < 9 else 1, [8] * 8 + [1]),
    ],
)
def test_as_many_go_in_step_as_clearly_gain_by_it(monkeypatch, of_count, expected):
    features = made.features(persons=96)
    many = [asked(lr=1e-3 * (n + 1), epochs=1) for n in range(9)]
    many = [one.model_copy(update={"together": None}) for one in many]
    timed(monkeypatch, 1.0, of_count)
    ways = {}
    found = [done.together for done in fit_many(features, many, ways=ways)]
    assert found == expected and ways["hugme"].at_once == expected[0]
    # What is known of a head is not measured again.
    monkeypatch.setattr(module, "epoch_seconds", lambda *given: pytest.fail("measured again"))
    assert [done.together for done in fit_many(features, many, ways=ways)] == expected


def test_the_measuring_moves_no_random_number():
    features = made.features(persons=96)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    many = [asked(seed=s, dropout=0.3).model_copy(update={"together": None}) for s in range(3)]
    for done in fit_many(features, many):
        same(features, many[done.number], done)
    assert torch.equal(torch.get_rng_state(), before)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("head", ["hugme", "kosti"])
def test_a_killed_group_goes_on_where_it_was(tmp_path, monkeypatch, head):
    monkeypatch.setattr(module, "SAVING", 1e9)  # however long it takes
    features = made.features(persons=96)
    many = [
        asked(head, s, dropout=0.3, epochs=e, patience=9, save_every=0)
        for s, e in ((0, 6), (1, 2), (2, 7))
    ]
    whole = {done.number: done for done in fit_many(features, many)}
    seen = []

    def until_the_fourth(number, row):
        seen.append((number, row["epoch"]))
        if (number, row["epoch"]) == (2, 5):
            raise Killed

    first = []
    with pytest.raises(Killed):
        first += fit_many(features, many, until_the_fourth, tmp_path)
    assert list(tmp_path.iterdir())
    # The second was done before and is not asked for again; a new one is.
    left = [many[0], many[2], asked(head, 5, dropout=0.3, epochs=2, save_every=0)]
    again = []
    found = {
        done.number: done
        for done in fit_many(
            features, left, lambda n, row: again.append((n, row["epoch"])), tmp_path
        )
    }
    assert found[0].fitted.resumed == found[1].fitted.resumed == 4
    for number, original in ((0, 0), (1, 2)):
        assert found[number].fitted.history == whole[original].fitted.history
        ours, theirs = (d.fitted.model.state_dict() for d in (found[number], whole[original]))
        assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("together", [1, 8])
def test_an_end_that_is_said_of_an_epoch_before_a_kill_counts(tmp_path, together):
    features = made.features(persons=96)
    many = [asked(seed=s, together=together, epochs=8, patience=9, save_every=0) for s in range(2)]

    class Killed(Exception):
        pass

    def kill(number, row):
        if row["epoch"] == 4:
            raise Killed

    with pytest.raises(Killed):
        list(fit_many(features, many, kill, tmp_path))

    def end(number, row):
        return number == 0 and row["epoch"] == 2

    found = {done.number: done for done in fit_many(features, many, end, tmp_path)}
    assert found[0].dropped and len(found[0].fitted.history) < 8
    assert not found[1].dropped and len(found[1].fitted.history) == 8


def test_who_is_refused_is_refused_alone():
    given = made.arrays(persons=96)
    given["splits"] = np.where(given["splits"] == "val", "train", given["splits"])
    features = from_arrays(**given)
    many = [asked(seed=0), asked(seed=1, select="last"), asked(seed=2)]
    found = {done.number: done for done in fit_many(features, many)}
    assert [isinstance(found[n].fitted, DataError) for n in range(3)] == [True, False, True]
    assert "train.select" in str(found[0].fitted)
    same(features, many[1], found[1])
