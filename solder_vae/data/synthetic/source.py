"""The embedded data set as a source: three tables, rendered once and cached."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from solder_vae.data.framing import CROPS
from solder_vae.data.synthetic import cache
from solder_vae.data.synthetic.cache import Arrays
from solder_vae.data.synthetic.defects import DEFECTS
from solder_vae.data.synthetic.render import Rendered
from solder_vae.data.synthetic.worker import Job, Order, render_many
from solder_vae.data.table import ImageTable
from solder_vae.data.transforms import VIEWS, apply_view, prepare_mask
from solder_vae.utils import files
from solder_vae.utils.checks import check_choice, check_flag, check_whole_number, is_number
from solder_vae.utils.errors import UserError
from solder_vae.utils.labels import NORMAL
from solder_vae.utils.threads import progress_bar


class SyntheticSource:
    """Rendered solder joints in the paper's split; see ``docs/research/synthetic.md``.

    The abnormal test images take the nine defects in turn. Image i of a split depends on the seed and on i alone:
    asking for more only adds to the end.
    """

    def __init__(
        self,
        image_size: int = 64,
        seed: int = 0,
        view: str = "plain",
        train: int = 2513,
        val: int = 567,
        test_normal: int = 84,
        test_abnormal: int = 66,
        severity: Sequence[float] = (0.6, 1.0),
        defects: Sequence[str] | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        use_cache: bool = True,
        render_workers: int | None = None,
        crop: str = "square",
        known: int | None = None,
    ) -> None:
        """Args:
            image_size: side of the squares, pixels.
            seed: of the whole set, at least 0.
            view: "plain" or "controlled", see :mod:`solder_vae.data.transforms`.
            train: number of good joints to train on.
            val: number of good joints to set the threshold on.
            test_normal: number of good joints to test on.
            test_abnormal: number of bad joints to test on.
            severity: lowest and highest severity of the defects, within [0, 1].
            defects: which defects, by name; None for all nine.
            cache_dir: where the rendered set is kept; None for the user's cache directory.
            use_cache: whether to keep it at all.
            render_workers: rendering processes; None for one per CPU.
            crop: "square" or "letterbox", see :mod:`solder_vae.data.framing`.
            known: number of bad joints that may be learnt from, rendered beside those of the test.

        Raises:
            UserError: a value out of its range, or an unknown defect.
        """
        counts = {"train": train, "val": val, "test_normal": test_normal, "test_abnormal": test_abnormal}
        if known is not None and known is not False:
            counts["known"] = known
        for name, count in counts.items():
            check_whole_number(f"data.{name}", count, 0)
        check_whole_number("data.image_size", image_size, 8)
        check_whole_number("data.seed", seed, 0)
        numbers = isinstance(severity, Sequence) and len(severity) == 2 and all(map(is_number, severity))
        if not numbers or not severity[0] <= severity[1] <= 1:
            raise UserError(f"data.severity={severity} does not fit: use a lowest and a highest one, such as [0.6,1].")
        if isinstance(defects, str) or not isinstance(defects, Sequence | None):
            raise UserError(f"data.defects={defects} does not fit: use a list, such as [bridge,pin_holes], or null.")
        self.defects = list(DEFECTS) if defects is None else list(defects)
        if unknown := sorted(str(defect) for defect in self.defects if defect not in [*DEFECTS]):
            raise UserError(f"unknown defect {', '.join(unknown)}: choose from {', '.join(DEFECTS)}.")
        if render_workers is not None:
            check_whole_number("data.render_workers", render_workers, 1)
        check_flag("data.use_cache", use_cache)
        if not self.defects:
            raise UserError(f"no defects are chosen: name some of {', '.join(DEFECTS)}.")
        check_choice("data.view", view, VIEWS)
        check_choice("data.crop", crop, CROPS)
        self.view, self.crop = view, crop
        self.image_size = image_size
        self.seed = seed
        self.counts = {name: count for name, count in counts.items() if name != "known" or count}
        self.severity = (float(severity[0]), float(severity[1]))
        self.cache_dir = Path(cache_dir) if cache_dir is not None else cache.default_directory()
        self.use_cache = use_cache
        self.render_workers = render_workers or os.cpu_count() or 1

    def in_view(self, view: str) -> SyntheticSource:
        """The same joints in another view, see :mod:`solder_vae.data.transforms`."""
        other = copy.copy(self)
        other.view = view
        return other

    def tables(self) -> dict[str, ImageTable]:
        """The tables ``train``, ``val``, ``test`` (good joints first) and, if asked for, ``known``.

        They come from the cache, or are rendered now.
        """
        return self._tables(self._arrays())

    def _jobs(self) -> list[Job]:
        def defect(stream: str, index: int) -> str:
            return self.defects[index % len(self.defects)] if stream in ("test_abnormal", "known") else NORMAL

        return [
            (stream, index, defect(stream, index)) for stream, count in self.counts.items() for index in range(count)
        ]

    def _arrays(self) -> Arrays:
        if not self.use_cache:
            return self._render()
        settings = [self.image_size, self.seed, self.counts, self.severity, self.defects, self.view]
        settings += [] if self.crop == "square" else [self.crop]
        identity = f"solder_vae synthetic {cache.generator_version()} {json.dumps(settings)}"
        path = self.cache_dir / f"synthetic-{hashlib.sha256(identity.encode()).hexdigest()[:20]}.bin"
        if (found := cache.load(path, identity)) is not None:
            return found
        with files.file_lock(path):
            if (found := cache.load(path, identity)) is not None:  # another process rendered it meanwhile
                return found
            arrays = self._render()
            cache.store(path, identity, arrays)
        return arrays

    def _render(self) -> Arrays:
        jobs = self._jobs()
        with progress_bar("Rendering the synthetic set", len(jobs)) as advance:
            joints = render_many(Order(self.seed, self.severity, jobs), self.render_workers, advance)
        return _prepared(joints, self.image_size, self.view, self.crop)

    def _tables(self, arrays: Arrays) -> dict[str, ImageTable]:
        jobs = self._jobs()
        splits = np.array([stream.split("_")[0] for stream, _, _ in jobs])
        tables = {}
        for split in ("train", "val", "test", *(["known"] if "known" in self.counts else [])):
            rows = np.flatnonzero(splits == split)
            tables[split] = ImageTable(
                images=arrays["images"][rows].astype(np.uint8, copy=False),
                paths=[f"synthetic/{jobs[row][0]}/{jobs[row][1]:05d}" for row in rows],
                defects=[jobs[row][2] for row in rows],
                native_size=arrays["native_size"][rows].astype(np.int64, copy=False),
                masks=arrays["masks"][rows].astype(bool, copy=False),
                factors={
                    name.removeprefix("factor/"): values[rows]
                    for name, values in arrays.items()
                    if name.startswith("factor/")
                },
            )
        return tables


def _prepared(joints: list[Rendered], size: int, view: str, crop: str) -> Arrays:
    """What is cached: ``images`` (N, S, S, 3), ``masks`` (N, S, S), ``native_size`` (N, 2), ``factor/NAME`` (N,)."""
    count = len(joints)
    arrays: Arrays = {
        "images": np.array([apply_view(joint.image, size, view, crop) for joint in joints], np.uint8).reshape(
            count, size, size, 3
        ),
        "masks": np.array([prepare_mask(joint.mask, size, crop) for joint in joints], bool).reshape(count, size, size),
        "native_size": np.array([joint.image.shape[:2] for joint in joints], np.int64).reshape(count, 2),
    }
    names = joints[0].factors if joints else {}
    return arrays | {f"factor/{name}": np.array([joint.factors[name] for joint in joints]) for name in names}
