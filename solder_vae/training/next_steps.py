"""The commands that a run's result suggests, as one would type them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from solder_vae.utils.paths import as_typed

KNOWN = 25
"""So many known defects are suggested: what most of their worth needs (docs/research/results.md)."""


class Step(NamedTuple):
    """What to do next.

    Attributes:
        what: in words, as one would ask for it.
        command: to type; '' where there is none.
    """

    what: str
    command: str = ""


@dataclass(frozen=True)
class RunCommands:
    """Commands that go on from a run.

    Args:
        overrides: of the run, as they were typed.
        directory: the run's folder.
        root: of its data; None for the embedded set.
        known: whether it learnt from known defects.
        plain: whether the pictures show their light and size, see :mod:`solder_vae.data.transforms`.
        rate_ends: the learning rate fell to nothing at the end of the run: a longer one starts anew.
        stopping: it had callbacks, which may end a run early.
        flags: of Hydra, such as ``--config-dir conf``, without which a command would not know the user's own configs.
        plugins: modules of the user's own that a command on the checkpoint must name.
    """

    overrides: Sequence[str]
    directory: str
    root: str | None
    known: bool = False
    plain: bool = True
    rate_ends: bool = False
    stopping: bool = False
    flags: Sequence[str] = ()
    plugins: Sequence[str] = ()

    def longer(self, epochs: int) -> str:
        """The same training to so many epochs, gone on with where that can be."""
        more = [f"trainer.max_epochs={epochs}", *([] if self.rate_ends else [f"resume={self.directory}/last.ckpt"])]
        # With a number of epochs, only a callback could end a run before a least number.
        idle = () if self.stopping else ("trainer.min_epochs", "trainer.min_steps")
        return self._train([*_without(self.overrides, ("trainer.max_epochs", "resume", *idle)), *more])

    def otherwise(self, primary: str, trained: bool) -> list[Step]:
        """What finds more where a run is not better than the trivial baselines (docs/research/results.md).

        Args:
            primary: the score that decided.
            trained: whether the model was trained by steps.
        """
        data = [each for each in self.overrides if _key(each).split(".")[0] in ("data", "seed")]
        of = "the embedded set's defects" if self.root is None else "your defects, if you have them"
        learning = self._train(["experiment=inspect", *_without(data, ("data.known",)), f"data.known={KNOWN}"])
        steps = [] if self.known else [Step(f"let a pretrained network learn from {KNOWN} of {of}", learning)]
        if self.root is None:
            if primary != "blend":
                command = self._train(["score=blend", *data])
                steps.append(Step("score by reconstruction and by likeness of pixels together", command))
            return steps
        if trained:
            steps.insert(0, Step("use a pretrained network", self._train(["experiment=inspect", *data])))
        if self.plain:
            command = self._typed("audit", [*_without(data, ("data", "data.known")), "out=audit"])
            steps.append(Step("see what light, colour and size alone give away", command))
        return steps

    def onwards(self) -> Step:
        """What a good run is for: new joints; after the embedded set one's own."""
        if self.root is None:
            own = self._train(["experiment=inspect", "data=folder", "data.root=PATH"])
            return Step("learn your own good joints, a folder with normal/ and one of each defect that you have", own)
        named = [f"plugins=[{','.join(self.plugins)}]"] if self.plugins else []
        given = shlex.join([f"checkpoint={self.directory}/best.ckpt", "images=PATH", "out=verdicts", *named])
        return Step("inspect new joints", f"python -m solder_vae.predict {given}")

    def _train(self, overrides: Sequence[str]) -> str:
        return self._typed("train", overrides)

    def _typed(self, command: str, overrides: Sequence[str]) -> str:
        return shlex.join(["python", "-m", f"solder_vae.{command}", *self.flags, *map(as_typed, overrides)])


def shortest(directory: Path) -> str:
    """A folder's path as one would type it here."""
    here = Path.cwd()
    return str(directory.relative_to(here) if directory.is_relative_to(here) else directory)


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def _without(overrides: Sequence[str], keys: Sequence[str]) -> list[str]:
    return [each for each in overrides if _key(each) not in keys]
