import logging
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from cache.errors import CacheError, DataError, SettingsError
from train.uniemox.descent import descend, pace, plan
from train.uniemox.pictures import Pictures
from train.uniemox.ranks import World
from train.uniemox.settings import Descent, Pretrain


class Made:
    """Pictures whose one image feature hangs on their pixels; remembers what it is asked for.

    lost: reasons by place. stop: the batch after so many that is never given.
    """

    def __init__(self, train=20, val=6, lost=None, stop=None):
        self.counts = {"train": train, "val": val, "test": 0}
        self.lost, self.left = lost or {}, stop
        self.asked, self.given, self.closed = [], [], 0

    def count(self, split):
        return self.counts[split]

    def read(self, split, batches, epoch=0):
        self.asked.append((split, epoch))
        try:
            for places in batches:
                if self.left is not None and split == "train":
                    if self.left == 0:
                        raise InterruptedError("killed")
                    self.left -= 1
                self.given.append((split, epoch, list(places)))
                yield self.batch(split, places, epoch)
        finally:
            self.closed += 1

    def batch(self, split, places, epoch):
        lost = {place: self.lost[place] for place in places if place in self.lost}
        rows = [place for place in places if place not in lost]
        seeds = [np.random.default_rng([split == "val", row]) for row in rows]
        scene = np.stack(
            [one.integers(0, 256, (3, 4, 4)) for one in seeds] or [np.zeros((3, 4, 4))]
        )
        scene = torch.from_numpy(scene.astype(np.uint8))[: len(rows)]
        noise = [np.random.default_rng([epoch, row]).random((2, 4)) for row in rows]
        noise = torch.from_numpy(np.stack(noise or [np.zeros((2, 4))]))[: len(rows)].float()
        return Pictures(
            scene=scene,
            person=scene.flip(3),
            noise=noise,
            whole=torch.zeros(len(rows), dtype=torch.bool),
            row=torch.tensor(rows, dtype=torch.long),
            image=scene.float().mean((2, 3)) / 255,
            lost=lost,
        )


class Line(nn.Module):
    """Squared error of a small network on the image features. drop: of its hidden numbers."""

    def __init__(self, drop=0.0, bad=None):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.hidden, self.last = nn.Linear(48, 8), nn.Linear(8, 3)
        self.drop, self.bad = nn.Dropout(drop), bad
        self.sizes, self.rows = [], []

    def _errors(self, pictures):
        values = self.drop(self.hidden(pictures.scene.flatten(1) / 255).tanh())
        return (self.last(values) - pictures.image).square().mean(1)

    def forward(self, pictures):
        assert self.training
        self.sizes.append(len(pictures))
        self.rows.append(pictures.row.tolist())
        errors = self._errors(pictures)
        if self.bad is not None and len(self.sizes) > self.bad:
            errors = errors * math.nan
        return {"loss": errors.mean(), "size": torch.tensor(float(len(pictures)))}

    @torch.no_grad()
    def measure(self, pictures):
        assert not self.training
        return {"loss": self._errors(pictures).sum(), "one": torch.tensor(float(len(pictures)))}

    def groups(self):
        return [
            {"params": [self.hidden.weight, self.last.weight], "weight_decay": 0.5, "scale": 1.0},
            {"params": [self.hidden.bias, self.last.bias], "weight_decay": 0.0, "scale": 0.5},
        ]


def settings(**changes):
    base = {"epochs": 3, "batch": 4, "lr": 0.5, "warmup": 1, "save_every": 1e9}
    return Descent.model_validate({**base, **changes})


def run(changes=None, task=None, source=None, **more):
    """The task after a descent, and its course."""
    task = Line() if task is None else task
    source = Made() if source is None else source
    course = descend(task, source, settings(**(changes or {})), "cpu", key="made", **more)
    return task, course


def same(one, other):
    """Whether two tasks are equal to the last bit."""
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def numbers(course):
    return [{k: v for k, v in r.items() if k not in ("seconds", "waited")} for r in course.history]


def test_the_learning_rate_rises_and_then_falls_as_half_a_cosine():
    given = settings(epochs=4, warmup=1)
    found = [pace(step, 2, given) for step in range(8)]
    cosine = [0.5 * (1 + math.cos(math.pi * part / 6)) for part in range(6)]
    np.testing.assert_allclose(found, [0.5, 1.0, *cosine], rtol=1e-12)
    assert pace(8, 2, given) == pytest.approx(0, abs=1e-12)
    assert [pace(step, 2, settings(epochs=1, warmup=2)) for step in (0, 1)] == [0.25, 0.5]
    assert pace(0, 2, settings(warmup=0)) == 1


def test_the_steps_are_those_of_adamw_as_written_by_hand():
    """One epoch of two steps, by the equations of Loshchilov and Hutter."""
    source, seen = Made(train=9, val=0), []
    task, course = run(
        {"epochs": 1, "warmup": 0, "lr": 8.0}, source=source, after=lambda epoch, row: None
    )
    by_hand = Line().train()
    moments = {name: [0.0, 0.0] for name, _ in by_hand.named_parameters()}
    for step, places in enumerate(places for _, _, places in source.given):
        by_hand.zero_grad()
        by_hand(source.batch("train", places, 1))["loss"].backward()
        base = 8.0 * 4 / 256 * 0.5 * (1 + math.cos(math.pi * step / 2))
        seen.append(base)
        for name, value in by_hand.named_parameters():
            scale, decay = (0.5, 0.0) if name.endswith("bias") else (1.0, 0.5)
            lr, grad, (m, v) = base * scale, value.grad, moments[name]
            m, v = 0.9 * m + 0.1 * grad, 0.95 * v + 0.05 * grad**2
            moments[name] = [m, v]
            m, v = m / (1 - 0.9 ** (step + 1)), v / (1 - 0.95 ** (step + 1))
            with torch.no_grad():
                value *= 1 - lr * decay
                value -= lr * m / (v.sqrt() + 1e-8)
    for name, value in task.named_parameters():
        torch.testing.assert_close(value, by_hand.state_dict()[name], rtol=1e-5, atol=1e-6)
    assert course.history[0]["lr"] == pytest.approx(seen[-1]) and len(seen) == 2


def test_what_a_group_does_not_say_is_as_the_settings_say():
    def grouped(**more):
        task = Line()
        task.groups = lambda: [{"params": [*task.parameters()], **more}]
        return run({"weight_decay": 0.3}, task)[0]

    assert same(grouped(), grouped(weight_decay=0.3, scale=1.0))
    assert not same(grouped(), grouped(weight_decay=0.0))


def test_an_epoch_is_a_permutation_of_its_own_and_drops_what_fills_no_step():
    source = Made(train=22, val=0)
    task, course = run({"epochs": 2, "accumulate": 2}, source=source)
    assert source.asked == [("train", 1), ("train", 2)] and source.closed == 2
    assert task.sizes == [4] * 8 and [row["pictures"] for row in course.history] == [16, 16]
    first, second = ([row for some in task.rows[at : at + 4] for row in some] for at in (0, 4))
    assert len(set(first)) == len(set(second)) == 16 and first != second
    again = Made(train=22, val=0)
    run({"epochs": 2, "accumulate": 2}, source=again)
    assert again.given == source.given
    other = Made(train=22, val=0)
    run({"epochs": 2, "accumulate": 2, "seed": 1}, source=other)
    assert other.given != source.given


def test_batches_go_round_the_processes():
    alone = plan(40, settings(accumulate=4), 1, 1)
    assert plan(40, settings(accumulate=2), 2, 1) == plan(40, settings(), 4, 1) == alone
    assert [len(step) for step in alone] == [4, 4] and {len(b) for s in alone for b in s} == {4}


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(15, [4, 4, 4, 3]), (9, [3, 3, 3, 0]), (5, [3, 2, 0, 0]), (3, [3, 0, 0, 0])],
)
def test_pictures_that_fill_no_step_make_one(count, sizes, caplog):
    [step] = plan(count, settings(accumulate=4), 1, 1)
    assert [len(some) for some in step] == sizes
    assert sorted(place for some in step for place in some) == [*range(count)]
    with caplog.at_level(logging.WARNING, "train"):
        task, course = run({"accumulate": 4, "epochs": 1}, source=Made(train=count))
    assert task.sizes == [size for size in sizes if size] and course.history[0]["pictures"] == count
    assert "no whole step of 16" in caplog.text and "descent.batch" in caplog.text


def test_pictures_that_make_one_smaller_step_count_alike():
    """By the gradient, of which AdamW would hide a factor."""
    one, _ = run({"batch": 8, "epochs": 1}, source=Made(train=8))
    two, _ = run({"batch": 4, "accumulate": 3, "epochs": 1}, source=Made(train=8))
    assert (one.sizes, two.sizes) == ([8], [4, 4])
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_no_batch_of_a_smaller_step_has_one_picture():
    [step] = plan(3, settings(batch=2, accumulate=2), 1, 1)
    assert [len(some) for some in step] == [3, 0]


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_pictures_are_refused(count):
    given = Pretrain(epochs=1)
    with pytest.raises(DataError, match=r"train picture.*pretrain\.batch"):
        descend(Line(), Made(train=count), given, "cpu", key="made")


def test_accumulated_batches_equal_a_larger_one():
    one, wide = run({"batch": 8})
    two, narrow = run({"batch": 4, "accumulate": 2})
    assert two.sizes == [4] * 12 and one.sizes == [8] * 6
    for name, value in one.state_dict().items():
        torch.testing.assert_close(two.state_dict()[name], value, rtol=1e-6, atol=1e-6)
    for a, b in zip(wide.history, narrow.history, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-6)
        assert a["lr"] == b["lr"]


def test_a_row_holds_means_over_pictures_of_train_and_val():
    lost = {3: "unreadable: made", 11: "unreadable: made"}
    task, course = run({"epochs": 1, "batch": 5}, source=Made(train=20, val=7, lost=lost))
    [row] = course.history
    assert list(row) == [
        *("epoch", "loss", "size", "val_loss", "val_one", "lr", "pictures", "seconds", "waited")
    ]
    assert row["epoch"] == 1 and row["pictures"] == 18 and course.lost == lost
    # A mean over the pictures, not over batches, which are of unequal size.
    assert row["size"] == pytest.approx(sum(n * n for n in task.sizes) / 18)
    assert row["val_one"] == 1 and 0 <= row["waited"] <= row["seconds"]
    source = Made(val=7, lost={3: ""})
    assert row["val_loss"] == pytest.approx(
        float(task.measure(source.batch("val", range(7), 1))["loss"]) / 6, rel=1e-6
    )
    assert not task.training


def test_what_is_lost_of_val_is_told_too():
    lost = dict.fromkeys([25, *range(28, 32)], "gone")
    _, course = run({"epochs": 1}, source=Made(train=20, val=32, lost=lost))
    assert course.lost == lost and course.history[0]["val_one"] == 1


def test_without_val_there_are_no_numbers_of_it():
    _, course = run(source=Made(val=0))
    assert all(not name.startswith("val_") for row in course.history for name in row)
    assert course.best_epoch == 3


def test_batches_that_lost_their_pictures_are_left_out_and_counted():
    first = plan(20, settings(), 1, 1)
    [alone], [gone] = first[0], first[1]
    lost = {place: "unreadable: made" for place in alone[1:] + gone}
    task, course = run({"epochs": 1}, source=Made(val=0, lost=lost))
    assert course.skipped == 2 and course.lost == lost
    assert course.history[0]["pictures"] == 12 and task.sizes == [4, 4, 4]


def test_a_lost_batch_adds_nothing_to_the_gradient_of_its_step():
    """As if its half of the step were of zero gradients."""
    [[kept, gone]] = plan(8, settings(accumulate=2), 1, 1)
    lost = dict.fromkeys(gone, "unreadable: made")
    task, _ = run({"accumulate": 2, "epochs": 1, "clip": None}, source=Made(train=8, lost=lost))
    by_hand = Line().train()
    (by_hand(Made().batch("train", kept, 1))["loss"] / 2).backward()
    for one, other in zip(task.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_an_epoch_without_any_picture_is_refused():
    lost = dict.fromkeys(range(20), "unreadable: made by a test")
    with pytest.raises(DataError, match=r"no batch of the 20 train .*made by a test.*data\.root"):
        run(source=Made(lost=lost))
    source = Made(train=40, val=6, lost=dict.fromkeys(range(6), "gone"))
    with pytest.raises(DataError, match=r"no batch of the 6 val .*gone"):
        run({"epochs": 1}, source=source)


@pytest.mark.parametrize(("precision", "named"), [("float32", False), ("bfloat16", True)])
def test_a_loss_that_is_not_finite_is_refused(precision, named):
    with pytest.raises(
        SettingsError, match=r"loss is not finite.*descent\.lr \(now 0\.5\)"
    ) as said:
        run({"precision": precision}, Line(bad=7))
    assert ("descent.precision" in str(said.value)) is named
    assert "after 8 steps" in str(said.value)


def test_a_val_loss_that_is_not_finite_is_refused():
    task = Line()
    task.measure = lambda pictures: {"loss": torch.tensor(math.inf)}
    with pytest.raises(SettingsError, match=r"the val loss is not finite"):
        run(task=task)


def test_float16_is_refused_on_a_cpu():
    with pytest.raises(SettingsError, match=r"descent\.precision is float16"):
        run({"precision": "float16"})


def test_bfloat16_is_used_where_it_is_asked_for():
    seen = []
    task = Line()
    task.hidden.register_forward_hook(lambda _, __, output: seen.append(output.dtype))
    run({"epochs": 1, "precision": "bfloat16"}, task)
    assert set(seen) == {torch.bfloat16}
    seen.clear()
    run({"epochs": 1}, task)
    assert set(seen) == {torch.float32}


def test_gradients_are_cut_to_the_longest_allowed():
    task, _ = run({"epochs": 1, "clip": 1e-3})
    lengths = [one.grad.square().sum() for one in task.parameters()]
    assert float(sum(lengths)) ** 0.5 == pytest.approx(1e-3, rel=1e-3)
    free, _ = run({"epochs": 1})
    assert float(sum(one.grad.square().sum() for one in free.parameters())) ** 0.5 > 1e-2


def test_the_weights_of_the_best_epoch_are_kept():
    merits = [0.1, 0.9, 0.9, 0.3]
    states = []
    task = Line()

    def after(epoch, row):
        assert not task.training
        states.append({name: value.clone() for name, value in task.state_dict().items()})

    def select(row):
        return merits[row["epoch"] - 1]

    _, course = run({"epochs": 4}, task, select=select, after=after)
    assert course.best_epoch == 2 and len(course.history) == len(states) == 4
    assert all(torch.equal(value, states[1][name]) for name, value in task.state_dict().items())
    last, course = run({"epochs": 4})
    assert course.best_epoch == 4
    assert all(torch.equal(value, states[3][name]) for name, value in last.state_dict().items())


def test_progress_is_told_of_every_step():
    said = []
    run({"epochs": 2}, progress=lambda *one: said.append(one))
    assert [one[:2] for one in said] == [(step, 10) for step in range(1, 11)]
    assert said[0][2].startswith("epoch 1 of 2, loss ") and said[-1][2].startswith("epoch 2 of 2")


STEPS = 3 * 3  # of the runs below: epochs, and steps in each of them
RANDOM = {"accumulate": 2, "epochs": 3, "save_every": 0}


@pytest.fixture(scope="module")
def uninterrupted():
    return run(RANDOM, Line(drop=0.3), Made(train=25), select=merit)


def merit(row):
    return {1: 0.5, 2: 0.7, 3: 0.6}[row["epoch"]]


@pytest.mark.parametrize("killed", range(1, STEPS + 1))
def test_a_run_killed_after_any_step_ends_as_if_it_had_not_been(tmp_path, uninterrupted, killed):
    whole, course = uninterrupted

    def kill(done, total, words):
        if done == killed:
            raise InterruptedError

    path = tmp_path / "resume.pt"
    with pytest.raises(InterruptedError):
        run(RANDOM, Line(drop=0.3), Made(train=25), resume=path, select=merit, progress=kill)
    torch.rand(7), np.random.rand(7)  # as another process would be
    source, said = Made(train=25), []
    task, again = run(
        RANDOM, Line(0.3), source, resume=path, select=merit, progress=lambda *one: said.append(one)
    )
    assert again.resumed == killed and again.best_epoch == course.best_epoch == 2
    assert same(task, whole)
    assert numbers(again) == numbers(course)
    # It did only what was left.
    assert [one[0] for one in said] == [*range(killed + 1, STEPS + 1)]
    assert sum(split == "train" for split, *_ in source.given) == 2 * (STEPS - killed)


@pytest.mark.parametrize("batches", [1, 4, 9])
def test_a_run_killed_within_a_step_goes_on_from_the_one_before(tmp_path, uninterrupted, batches):
    whole, course = uninterrupted
    path, source = tmp_path / "resume.pt", Made(train=25, stop=batches)
    with pytest.raises(InterruptedError):
        run(RANDOM, Line(drop=0.3), source, resume=path, select=merit)
    assert source.closed
    task, again = run(RANDOM, Line(drop=0.3), Made(train=25), resume=path, select=merit)
    assert again.resumed == batches // 2
    assert same(task, whole) and numbers(again) == numbers(course)


def test_an_error_ends_the_reading():
    """Of a source that may have processes which read ahead."""
    readers = []

    class Kept(Made):
        def read(self, *given):
            readers.append(super().read(*given))
            return readers[-1]

    def kill(done, total, words):
        if done == 7:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        run(source=Kept(), progress=kill)
    assert len(readers) == 3 and all(one.gi_frame is None for one in readers)  # they have ended


def test_what_was_lost_before_a_kill_is_told_after_it(tmp_path):
    first, *_ = plan(25, settings(**RANDOM), 1, 1)
    lost = dict.fromkeys(first[0], "gone")

    def kill(done, total, words):
        if done == 7:
            raise InterruptedError

    path, given = tmp_path / "resume.pt", {**RANDOM, "epochs": 3}
    with pytest.raises(InterruptedError):
        run(given, source=Made(train=25, lost=lost), resume=path, progress=kill)
    # In the meantime they can be read, so that it is the first run that told of them.
    _, course = run(given, source=Made(train=25), resume=path)
    assert course.lost == lost and course.skipped == 1
    assert course.history[0]["pictures"] == 20


def test_ctrl_c_saves_before_it_ends(tmp_path, uninterrupted):
    given = {**RANDOM, "save_every": 1e9}
    whole, course = uninterrupted

    class Stopped(Made):
        def batch(self, split, places, epoch):
            if len(self.given) == 11:
                raise KeyboardInterrupt
            return super().batch(split, places, epoch)

    path = tmp_path / "resume.pt"
    with pytest.raises(KeyboardInterrupt):
        run(given, Line(drop=0.3), Stopped(train=25), resume=path, select=merit)
    task, again = run(given, Line(drop=0.3), Made(train=25), resume=path, select=merit)
    # Before the 11th batch: 6 and the 2 of val, then a step of 2.
    assert again.resumed == 4
    assert same(task, whole) and numbers(again) == numbers(course)


def test_ctrl_c_within_a_step_of_the_optimizer_saves_nothing(tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.optim.AdamW, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run({"save_every": 1e9}, resume=tmp_path / "resume.pt")
    assert not (tmp_path / "resume.pt").exists()


def test_it_is_saved_only_when_it_is_time(tmp_path):
    path, there = tmp_path / "resume.pt", []
    run({"save_every": 1e9}, resume=path, progress=lambda *_: there.append(path.exists()))
    assert not any(there) and path.exists()  # at the end it is
    source = Made()
    task, course = run({"save_every": 1e9}, source=source, resume=path)
    assert course.resumed == 15 and source.given == []
    whole, before = run({"save_every": 1e9})
    assert same(task, whole) and numbers(course) == numbers(before)


def test_a_run_of_other_settings_begins_anew_and_says_so(tmp_path, caplog):
    path = tmp_path / "resume.pt"
    run(resume=path)
    with caplog.at_level(logging.WARNING, "train"):
        course = descend(Line(), Made(), settings(), "cpu", key="another", resume=path)
    assert course.resumed == 0 and "begins at the beginning" in caplog.text
    path.write_bytes(b"PK damaged")
    with caplog.at_level(logging.WARNING, "train"):
        _, course = run(resume=path)
    assert course.resumed == 0 and "damaged" in caplog.text


def test_processes_that_find_different_files_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "resume.pt"
    run(resume=path)
    monkeypatch.setattr(World, "gather", lambda self, value: [value, None])
    with pytest.raises(CacheError, match="do not all find the same"):
        run(resume=path)


def test_what_a_task_draws_depends_on_its_place_alone():
    """Not on how the batches are shared out, nor on what was drawn before."""
    torch.manual_seed(5), np.random.seed(5)
    before = torch.rand(1), np.random.rand()
    torch.manual_seed(5), np.random.seed(5)
    one, _ = run({"epochs": 2}, Line(drop=0.5))
    assert (torch.rand(1), np.random.rand()) == before
    two, _ = run({"epochs": 2}, Line(drop=0.5))
    assert same(one, two)
    other, _ = run({"epochs": 2}, Line(drop=0.0))
    assert not same(one, other)


def test_every_batch_has_random_numbers_of_its_own():
    drawn, task = [], Line()
    forward = task.forward

    def draws(pictures):
        drawn.append((float(torch.rand(1)), float(np.random.rand())))
        return forward(pictures)

    task.forward = draws
    run({"epochs": 2, "accumulate": 2}, task)
    assert len(drawn) == 8 and all(len(set(some)) == 8 for some in zip(*drawn, strict=True))
    first, drawn = drawn, []
    torch.manual_seed(5), np.random.seed(5)
    run({"epochs": 2, "accumulate": 2}, task)
    assert drawn == first
    drawn = []
    run({"epochs": 2, "accumulate": 2, "seed": 1}, task)
    assert not set(first) & set(drawn)


def test_pictures_reach_the_task_as_they_are():
    class Strange(Made):
        def batch(self, split, places, epoch):
            return replace(super().batch(split, places, epoch), image=None, target=torch.ones(4, 2))

    seen = []
    task = Line()
    task.forward = lambda pictures: (seen.append(pictures), {"loss": task.last.weight.sum()})[1]
    run({"epochs": 1}, task, Strange(val=0))
    assert all(one.image is None and one.target.shape == (4, 2) for one in seen) and len(seen) == 5
