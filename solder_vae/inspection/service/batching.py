"""Joints of several requests scored together: one thread for the network, which takes whatever waits."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import NamedTuple

from solder_vae.inspection.inspector import Inspector, Unreadable, Verdict
from solder_vae.inspection.joints import BATCH, Joint, Picture
from solder_vae.utils.errors import UserError

Prepared = tuple[Joint, Picture | UserError]
"""A joint with its image as the network takes it, or what is wrong with it."""

Results = list[Verdict | Unreadable]

log = logging.getLogger("solder_vae")


class Group(NamedTuple):
    """Joints of one request, at most ``BATCH`` of them, and where their verdicts are awaited."""

    joints: Sequence[Prepared]
    answer: Future[Results]


class Batcher:
    """Scores groups of joints in the order in which they come, several groups at once while they fit into a batch.

    Nothing waits for company: a group that comes alone is scored at once, and what comes meanwhile is scored together
    next. A full group is a batch of its own, always: many joints of one request are scored in ``predict``'s batches.

    Args:
        inspector: decides.
        batch: how many joints of several requests are scored together; 1: each group by itself.
        told: is called with the number of joints of each batch.
    """

    def __init__(self, inspector: Inspector, batch: int = BATCH, told: Callable[[int], None] = lambda _: None) -> None:
        self._inspector, self._batch, self._told = inspector, batch, told
        self._queue: queue.SimpleQueue[Group | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="network", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def submit(self, joints: Sequence[Prepared]) -> Future[Results]:
        """Have joints scored, ``BATCH`` at most; their results, in their order, come in another thread."""
        group = Group(joints, Future())
        self._queue.put(group)
        return group.answer

    def close(self) -> None:
        """Answer what waits and end the thread."""
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        kept: Group | None = None  # did not fit into the batch before
        ended = False
        while kept or not ended:
            group = kept or self._queue.get()
            kept = None
            if group is None:
                return
            groups, size = [group], len(group.joints)
            while size < self._batch and not ended:
                try:
                    more = self._queue.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    ended = True
                elif size + len(more.joints) > self._batch:
                    kept = more
                    break
                else:
                    groups.append(more)
                    size += len(more.joints)
            self._answer([group for group in groups if group.answer.set_running_or_notify_cancel()])

    def _answer(self, groups: Sequence[Group]) -> None:
        joints = [joint for group in groups for joint in group.joints]
        if not joints:
            return
        self._told(len(joints))
        try:
            results = iter(list(self._inspector.decide(joints)))
        except Exception as error:
            if len(groups) == 1:
                groups[0].answer.set_exception(error)
                return
            log.warning("a batch of %d requests failed (%s): each is tried by itself", len(groups), error)
            for group in groups:
                self._answer([group])
            return
        for group in groups:
            group.answer.set_result([next(results) for _ in group.joints])
