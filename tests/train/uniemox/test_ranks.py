import multiprocessing
import os
import socket
from contextlib import contextmanager

import pytest
import torch

from cache.errors import DataError, SettingsError
from tests.train.uniemox.test_descent import Line, Made, descend, numbers, settings
from train.uniemox.ranks import World, apart, joined

NAMED = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
LOST = dict.fromkeys([*range(5, 9), 13], "unreadable: made")


def test_a_process_alone_is_a_world_of_one(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    module = torch.nn.Linear(2, 2)
    with joined("cpu") as world:
        assert world == World(torch.device("cpu"), 0, 1) and world.first
        assert world.wrap(module) is module
        assert world.gather(3) == [3] and world.agree("so") == "so"
    with apart(module):
        module(torch.ones(2)).sum().backward()
    assert module.weight.grad is not None


def test_several_processes_without_torchrun_are_refused(monkeypatch):
    for name in NAMED:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    message = r"WORLD_SIZE is 2, but LOCAL_RANK, MASTER_ADDR, MASTER_PORT is not set.*torchrun"
    with pytest.raises(SettingsError, match=message), joined("cpu"):
        pass


def test_more_processes_than_gpus_are_refused(monkeypatch):
    for name in NAMED:
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(SettingsError, match=r"process 1 .*--nproc-per-node 1"), joined("cuda"):
        pass


class Source(Made):
    """Fails at the batch where the other stops."""

    def read(self, *given):
        try:
            yield from super().read(*given)
        except InterruptedError:
            raise DataError("made by a test") from None


def descended(folder, stop=None, **changes):
    """What each of two processes does, and one with accumulate 2; all that can be compared."""
    task, source = Line(drop=0.3), Source(train=28, val=7, lost=LOST, stop=stop)
    given = settings(epochs=2, save_every=0, clip=0.5, **changes)
    steps, epochs = [], []
    course = descend(
        task,
        source,
        given,
        "cpu",
        key="made",
        resume=folder / "resume.pt",
        progress=lambda *one: steps.append(one[0]),
        after=lambda epoch, row: epochs.append(epoch),
    )
    told = {"steps": steps, "epochs": epochs, "given": source.given}
    return {**vars(course), **told, "state": task.state_dict(), "numbers": numbers(course)}


def of_two(rank, port, folder, fails):
    """In each of two processes, with the variables that torchrun sets: a run in which the second
    has a disk error at its sixth batch; or the same run again without it, and one that is whole."""
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    with joined("cpu") as world:
        assert (world.rank, world.size, world.first) == (rank, 2, rank == 0)
        if fails:
            with pytest.raises(DataError, match="made by a test"):
                descended(folder, stop=5 if rank == 1 else None)
        else:
            found = [descended(folder), descended(folder / "whole")]
            torch.save(found, folder / f"{rank}.pt")


@contextmanager
def two_processes(folder, fails):
    """Started, and killed at the end; as torchrun does."""
    with socket.socket() as some:
        some.bind(("127.0.0.1", 0))
        port = str(some.getsockname()[1])
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([of_two.__module__])
    processes = [
        context.Process(target=of_two, args=(rank, port, folder, fails)) for rank in (0, 1)
    ]
    for process in processes:
        process.start()
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.join()
            process.close()


@pytest.mark.slow
def test_two_processes_equal_one_that_accumulates_twice_and_go_on_after_an_error(tmp_path):
    alone = descended(tmp_path / "alone", accumulate=2)
    with two_processes(tmp_path, fails=True) as (_, failing):
        failing.join(timeout=120)
        assert failing.exitcode == 0
    with two_processes(tmp_path, fails=False) as both:
        for process in both:
            process.join(timeout=120)
        assert [process.exitcode for process in both] == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for again, whole in (first, second):
        # The first may have been killed before it wrote the fifth.
        assert whole["resumed"] == 0 and again["resumed"] in (4, 5)
        assert whole["numbers"] == again["numbers"] == first[1]["numbers"]
        for name, value in alone["state"].items():
            torch.testing.assert_close(whole["state"][name], value, rtol=1e-5, atol=1e-6)
            assert torch.equal(whole["state"][name], again["state"][name])
            assert torch.equal(whole["state"][name], first[1]["state"][name])
        for one, other in zip(alone["numbers"], whole["numbers"], strict=True):
            assert other == pytest.approx(one, rel=1e-5)
        assert whole["lost"] == again["lost"] == alone["lost"] == LOST
        assert whole["skipped"] == again["skipped"] == alone["skipped"]
    # The first alone tells of it, and each reads its own half.
    assert (first[1]["steps"], first[1]["epochs"]) == (alone["steps"], alone["epochs"])
    assert (alone["steps"], alone["epochs"]) == ([1, 2, 3, 4, 5, 6], [1, 2])
    assert second[1]["steps"] == second[1]["epochs"] == []
    for split in ("train", "val"):
        read = [
            [one for one in given["given"] if one[0] == split]
            for given in (alone, first[1], second[1])
        ]
        assert read[1:] == [read[0][::2], read[0][1::2]]
