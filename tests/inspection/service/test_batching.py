"""Requests scored together: what fits, in the order in which it came, and one's failure is not another's."""

import threading
from concurrent.futures import CancelledError
from contextlib import contextmanager

import pytest

from solder_vae.inspection.service.batching import Batcher


class Gate:
    """Stands for an inspector: says of each joint its name, and waits until it may go on."""

    def __init__(self):
        self.batches, self.begun, self.open = [], threading.Semaphore(0), threading.Event()

    def decide(self, joints):
        self.batches.append(list(joints))
        self.begun.release()
        assert self.open.wait(30)
        if "bad" in joints:
            raise ValueError("bad")
        yield from (f"said of {joint}" for joint in joints)


@pytest.fixture
def gate():
    return Gate()


@contextmanager
def behind(gate, *groups, batch=8):
    """What becomes of groups that come while the network is busy with another."""
    batcher = Batcher(gate, batch)
    first = batcher.submit(["first"])
    assert gate.begun.acquire(timeout=300)
    answers = [batcher.submit(group) for group in groups]
    yield answers
    gate.open.set()
    batcher.close()
    assert first.result() == ["said of first"]
    assert not batcher.alive


def test_what_waits_is_scored_together_while_it_fits(gate):
    groups = [list("abc"), list("de"), list("fghi"), list("j"), list("klmnopqrstu"), list("v")]
    with behind(gate, *groups) as answers:
        pass
    assert ["".join(batch) for batch in gate.batches] == ["first", "abcde", "fghij", "klmnopqrstu", "v"]
    assert [answer.result() for answer in answers] == [[f"said of {joint}" for joint in group] for group in groups]


def test_each_by_itself_if_so_told(gate):
    with behind(gate, ["a"], ["b", "c"], batch=1):
        pass
    assert gate.batches == [["first"], ["a"], ["b", "c"]]


def test_one_that_fails_does_not_take_the_others_along(gate):
    with behind(gate, ["a"], ["bad"], ["b"]) as (good, bad, other):
        pass
    assert good.result() == ["said of a"]
    assert other.result() == ["said of b"]
    with pytest.raises(ValueError, match="bad"):
        bad.result()


def test_one_that_nobody_waits_for_is_left_out(gate):
    with behind(gate, ["a"], ["b"]) as (gone, other):
        assert gone.cancel()
    assert gate.batches == [["first"], ["b"]]
    assert other.result() == ["said of b"]
    with pytest.raises(CancelledError):
        gone.result()
