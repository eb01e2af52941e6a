"""Images on disk as a source: find, decode once, split, hand over as tables (docs/use/data.md: the rules)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from solder_vae.data.component_types import check_regex, with_types
from solder_vae.data.configured import data_of
from solder_vae.data.framing import CROPS, SQUARE
from solder_vae.data.image_files import MIN_SIDE, Image
from solder_vae.data.known import check_known, known_records, set_aside, with_known
from solder_vae.data.layouts import LAYOUTS, Record, check_root, find_records, normal_names, with_group
from solder_vae.data.masks import read_masks
from solder_vae.data.names import NORMAL_NAMES
from solder_vae.data.photos import Photo, PhotoImages, decode_all
from solder_vae.data.similarity import SIDE, lookalikes, unit_pictures
from solder_vae.data.splits import (
    KNOWN,
    PAPER_FRACTIONS,
    SPLITS,
    TEST,
    TRAIN,
    VAL,
    assign,
    leaks,
    straddling,
    three_fractions,
)
from solder_vae.data.table import ImageTable
from solder_vae.data.transforms import PLAIN, VIEWS
from solder_vae.utils.checks import check_choice, check_whole_number, is_number
from solder_vae.utils.errors import UserError
from solder_vae.utils.labels import NORMAL
from solder_vae.utils.text import printable

log = logging.getLogger(__name__)

APART, TOGETHER = "apart", "together"

MOST_COMPARED = 20_000
"""Good joints that are compared with one another: a minute on one core, and it grows with their square."""


@dataclass(frozen=True)
class FolderSource:
    r"""Images on disk in one of the layouts of :mod:`solder_vae.data.layouts`.

    Attributes:
        root: folder of the images, or path of a manifest.
        layout: "auto", "class_folders", "split_folders" or "manifest".
        image_size: side of the prepared images in pixels.
        view: "plain" or "controlled", see :mod:`solder_vae.data.transforms`.
        fractions: proportions of the normal images in training, validation and test, if the layout gives no
            splits. If it gives all but validation, validation is taken from training in the proportion of the
            first two.
        seed: of the split.
        on_bad_file: "error" refuses to go on with unreadable images, "skip" leaves them out with a warning.
        group_regex: searched for in each file's name; what its first parentheses match is the image's group:
            ``^(b\d+)_`` keeps b0001_s1.png and b0001_s2.png in one split.
        cache_mb: megabytes of prepared images to keep in memory. Images beyond are decoded from their files each
            time they are needed. That is slower, but the same to the bit and in bounded memory.
        normal: names that folders or labels of good joints have, in either case.
        crop: "square" or "letterbox", see :mod:`solder_vae.data.framing`.
        lookalikes: "apart" splits normals that look alike like any others; "together" keeps them in one split, see
            :func:`solder_vae.data.similarity.lookalikes`. Then no test or validation normal looks like a training one.
        lookalike_correlation: from which correlation on two normals look alike.
        known: how many defects may be learnt from, drawn evenly over the types by seed; "all"; or a folder of them.
            See :mod:`solder_vae.data.known`.
        type_regex: searched for in each file's path relative to the root; what its first parentheses match is the type
            of the component, see :mod:`solder_vae.data.component_types`. A manifest's own type comes first.

    Raises:
        UserError: a value is not one of those, or the root doesn't exist.
    """

    root: str | Path | None
    layout: str = "auto"
    image_size: int = 64
    view: str = PLAIN
    fractions: Sequence[float] = PAPER_FRACTIONS
    seed: int = 0
    on_bad_file: str = "error"
    group_regex: str | None = None
    cache_mb: float = 1024
    normal: Sequence[str] = NORMAL_NAMES
    crop: str = SQUARE
    lookalikes: str = APART
    lookalike_correlation: float = 0.85
    known: int | str | None = None
    type_regex: str | None = None

    def __post_init__(self) -> None:
        check_root(self.root)
        check_choice("data.layout", self.layout, LAYOUTS)
        check_whole_number("data.image_size", self.image_size, MIN_SIDE)
        check_choice("data.view", self.view, VIEWS)
        check_choice("data.crop", self.crop, CROPS)
        check_choice("data.on_bad_file", self.on_bad_file, ("error", "skip"))
        if not isinstance(self.cache_mb, int | float) or not 0 <= self.cache_mb < np.inf:
            raise UserError(f"data.cache_mb={self.cache_mb} does not fit: give megabytes, 0 or more.")
        check_choice("data.lookalikes", self.lookalikes, (APART, TOGETHER))
        if not is_number(self.lookalike_correlation) or not 0 < self.lookalike_correlation <= 1:
            raise UserError(
                f"data.lookalike_correlation={self.lookalike_correlation} does not fit: use a number above 0, up to 1."
            )
        object.__setattr__(self, "fractions", three_fractions(self.fractions))
        object.__setattr__(self, "normal", normal_names(self.normal, "data.normal"))
        check_regex("data.group_regex", self.group_regex, r"^(b\d+)_")
        check_regex("data.type_regex", self.type_regex, r"([RC]\d{4})")
        object.__setattr__(self, "known", check_known(self.known))

    @property
    def alike(self) -> float | None:
        """From which correlation on look-alikes are kept together; None where they are not."""
        return self.lookalike_correlation if self.lookalikes == TOGETHER else None

    def records(self) -> list[Record]:
        """The images, not opened yet, sorted by path.

        Raises:
            UserError: there are none, or they don't fit the layout, ``group_regex`` or ``type_regex``.
        """
        records, skip = self.listed(), self.on_bad_file == "skip"
        apart = {record.path.resolve(): record for record in known_records(self.known, self.normal, skip)}
        records = [record for record in records if not apart or record.path.resolve() not in apart] + [*apart.values()]
        if self.group_regex is not None:
            records = [with_group(record, self.group_regex) for record in records]
        if self.type_regex is not None:
            root = Path(str(self.root))
            records = with_types(records, root if root.is_dir() else root.parent, self.type_regex)
            if not any(record.type for record in records):
                raise UserError(
                    f"data.type_regex={self.type_regex} matches no file's path below data.root; mend it or leave it "
                    "out."
                )
        return records

    def listed(self) -> list[Record]:
        """The images as the layout has them."""
        return find_records(Path(str(self.root)), self.layout, self.normal, skip=self.on_bad_file == "skip")

    def tables(self) -> dict[str, ImageTable]:
        """Find, decode and split the images, each once.

        Returns:
            "train", "val" (normals only), "test", and "known" where there are known defects. Rows are ordered by
            defect type and content, so that neither order nor names of the files change anything.

        Raises:
            UserError: there are no images, no normal ones, too few to split, or bad ones (all are listed).
        """
        keep = int(self.cache_mb * 1e6 / (3 * self.image_size**2))
        records = self.records()
        decoded, kept = decode_all(records, self.image_size, self.view, keep, self.crop)
        photos = sorted(_good(decoded, self.on_bad_file), key=Photo.sort_key)
        for defect in sorted({record.defect for record in records} - {photo.defect for photo in photos}):
            log.warning("The class %s has no picture that can be read.", printable(defect))
        if not any(photo.defect == NORMAL for photo in photos):
            found = ", ".join(sorted({photo.defect for photo in photos})) or "nothing"
            raise UserError(
                f"{self.root}: has no normal images, which training needs; call their folder or label "
                f"{' or '.join(self.normal)}, or name them: data.normal=[NAME]. Found: {printable(found)}."
            )
        _warn_of_contradictions(photos)
        given, photos = set_aside(photos, self.known)
        photos = split_photos(photos, self.fractions, self.seed, self.alike) + given
        photos = with_known(photos, self.known, self.seed, self._alike_defects)
        typed = any(photo.type for photo in photos)
        tables = {
            split: self._table([photo for photo in photos if photo.split == split], kept, len(kept) < keep, typed)
            for split in (*SPLITS, KNOWN)
        }
        known = len(tables[KNOWN])
        if not known:
            del tables[KNOWN]
        if not tables[TEST].labels.any():
            why = "has no defective images, so it cannot be measured"
            if known:
                why = f"all of its {known} defective images are known (data.known), so none is left to measure"
            log.warning("%s: %s how well defects are found.", self.root, why)
        return tables

    def _alike_defects(self, photos: Sequence[Photo]) -> list[int | None]:
        """Each defect's group of look-alikes, where these are kept together."""
        return [None] * len(photos) if self.alike is None else _lookalike_groups(photos, self.alike, normals=False)

    def _table(self, photos: Sequence[Photo], kept: Mapping[str, Image], all_kept: bool, typed: bool) -> ImageTable:
        images = PhotoImages(photos, self.image_size, self.view, kept, self.crop)
        return ImageTable(
            images=images[:] if all_kept else images,
            paths=[photo.name for photo in photos],
            defects=[photo.defect for photo in photos],
            types=[photo.type for photo in photos] if typed else None,
            digests=[photo.digest for photo in photos],
            native_size=np.array([photo.native_size for photo in photos], np.int64).reshape(-1, 2),
            masks=read_masks(
                [(photo.path, photo.defect, photo.native_size) for photo in photos], self.image_size, self.crop
            ),
        )


#: What ``conf/data/folder.yaml`` names.
folder_data = data_of(FolderSource)


def _good(results: Sequence[Photo | UserError], on_bad_file: str) -> list[Photo]:
    """The photos among the results; errors are all listed at once, or counted and skipped."""
    bad = [f"\n  {printable(str(result))}" for result in results if isinstance(result, UserError)]
    if bad and on_bad_file == "error":
        raise UserError(
            f"{len(bad)} of {len(results)} images can't be used; mend them, or leave them out with "
            f"data.on_bad_file=skip:{''.join(bad)}"
        )
    if bad:
        log.warning("Skipped %d of %d images:%s", len(bad), len(results), "".join(bad))
    return [result for result in results if isinstance(result, Photo)]


def split_photos(
    photos: Sequence[Photo], fractions: Sequence[float], seed: int, alike: float | None = None
) -> list[Photo]:
    """Complete the splits that the layout gives (all, all but validation, or none).

    If it gives splits, copies of test images are dropped from training and validation with a warning, and so are
    copies of validation images from training.

    Args:
        photos: of one data set.
        fractions: see :class:`FolderSource`.
        seed: of the split.
        alike: normals with this correlation or more are kept in one split; None for no such thing.

    Raises:
        UserError: a group straddles the given splits, or there are too few images to split; or look-alikes are to be
            kept together, but the layout gives splits or the normals are too many to compare.
    """
    if all(photo.split is None for photo in photos):
        return _assigned(photos, fractions, seed, None if alike is None else _lookalike_groups(photos, alike))
    if alike is not None:
        raise UserError(
            f"data.lookalikes={TOGETHER} says how images are split, but these images come with splits: "
            f"leave it at {APART}, or put all good joints into one folder."
        )
    _check_groups(photos)
    photos = _without_leaks(photos)
    train = [photo for photo in photos if photo.split == TRAIN]
    if not train:
        raise UserError("No training images are left; give the split train to more normal images.")
    if any(photo.split == VAL for photo in photos):
        return list(photos)
    rest = [photo for photo in photos if photo.split != TRAIN]
    return sorted(_assigned(train, (*fractions[:2], 0), seed) + rest, key=Photo.sort_key)


def _assigned(
    photos: Sequence[Photo], fractions: Sequence[float], seed: int, alike: Sequence[int | None] | None = None
) -> list[Photo]:
    digests, groups = [photo.digest for photo in photos], [photo.group for photo in photos]
    abnormal = np.array([photo.defect != NORMAL for photo in photos])
    names = assign(digests, abnormal, groups, fractions, seed, alike)
    return [replace(photo, split=name) for photo, name in zip(photos, names, strict=True)]


def _lookalike_groups(photos: Sequence[Photo], above: float, normals: bool = True) -> list[int | None]:
    """Each normal's group of look-alikes, or each defect's; None for the others.

    The photographs are compared as they are, so that neither view nor image size change the split.
    """
    rows = [row for row, photo in enumerate(photos) if (photo.defect == NORMAL) == normals]
    what = "good" if normals else "bad"
    if len(rows) > MOST_COMPARED:
        raise UserError(
            f"data.lookalikes={TOGETHER} compares every {what} joint with every other, and {len(rows)} are more than "
            f"{MOST_COMPARED}: name their boards instead (data.group_regex, or the column group of a manifest)."
        )
    pictures = PhotoImages([photos[row] for row in rows], SIDE, PLAIN, {})
    parts = [unit_pictures(pictures[start : start + 256]) for start in range(0, len(rows), 256)]
    found = lookalikes(np.concatenate([np.empty((0, SIDE * SIDE + 1), np.float32), *parts]), above)
    sizes = np.bincount(found) if len(found) else np.zeros(1, np.int64)
    log.info(
        "Look-alikes are kept together: %d %s joints are in %d groups, %d of them in the largest.",
        len(rows),
        what,
        np.count_nonzero(sizes),
        sizes.max(),
    )
    groups: list[int | None] = [None] * len(photos)
    for row, group in zip(rows, found.tolist(), strict=True):
        groups[row] = group
    return groups


def _check_groups(photos: Sequence[Photo]) -> None:
    torn = straddling([photo.group for photo in photos], [str(photo.split) for photo in photos])
    if torn:
        group, names = min(torn.items())
        raise UserError(
            f"{len(torn)} groups are in more than one split, such as {printable(group)} in "
            f"{' and '.join(names)}; give each group one split, or no splits, or leave the groups out."
        )


def _without_leaks(photos: Sequence[Photo]) -> list[Photo]:
    dropped = leaks([photo.digest for photo in photos], [str(photo.split) for photo in photos])
    if dropped:
        index, copy = next(iter(dropped.items()))
        log.warning(
            "Dropped %d images from training or validation, since validation or testing has the same pixels; "
            "such as %s (copy of %s).",
            len(dropped),
            photos[index].name,
            photos[copy].name,
        )
    return [photo for index, photo in enumerate(photos) if index not in dropped]


def _warn_of_contradictions(photos: Sequence[Photo]) -> None:
    """Equal pixels with different labels are somebody's mistake, which only the user can put right."""
    first: dict[str, Photo] = {}
    pairs = [(first.setdefault(photo.digest, photo), photo) for photo in photos]
    unlike = [(one, other) for one, other in pairs if one.defect != other.defect]
    if unlike:
        one, other = unlike[0]
        log.warning(
            "%d images have the same pixels as one of another class, such as %s and %s; check their labels.",
            len(unlike),
            one.name,
            other.name,
        )
