"""What an audit finds out about a data set, in numbers and lists; :mod:`solder_vae.audit_verdict` judges."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solder_vae.audit_files import ExaminedFile, examine_all
from solder_vae.baselines import trivial_features
from solder_vae.data.folder import FolderSource, split_photos
from solder_vae.data.layouts import printable
from solder_vae.data.splits import SPLITS, TEST, TRAIN, VAL
from solder_vae.data.synthetic.source import SyntheticSource
from solder_vae.data.table import NORMAL, ImageTable
from solder_vae.data.transforms import Image
from solder_vae.data.view import CONTROLLED, PLAIN, RESOLUTION
from solder_vae.duplicates import groups_of, near_pairs
from solder_vae.errors import UserError
from solder_vae.shortcut import TrivialAuroc, measure

_PERCENTILES = (5, 25, 50, 75, 95)


@dataclass(frozen=True)
class Item:
    """One readable image.

    Attributes:
        name: printable.
        defect: defect type, or "normal".
        split: "train", "val" or "test": the layout's, else the training's; None where no split is possible.
        used: False if training leaves it out, as the copy of an image of another given split.
        native_size: height and width in pixels.
        format: of the file; "" where there is none.
        plain, controlled: ``(S, S, 3)`` uint8.
        digest: equal iff all pixels are.
    """

    name: str
    defect: str
    split: str | None
    used: bool
    native_size: tuple[int, int]
    format: str
    plain: Image
    controlled: Image
    digest: str


@dataclass(frozen=True)
class Group:
    """Copies or near duplicates of one another.

    Attributes:
        rows: of the items.
        classes, splits: where they are.
    """

    rows: list[int]
    classes: list[str]
    splits: list[str]


@dataclass(frozen=True)
class Audit:
    """All that was found out.

    Attributes:
        items: the readable images, normals first, then by class and name.
        unreadable: name and reason of the others.
        odd: row of an item, and what is suspicious about it.
        no_split: why training could not split these images; None if it can.
        copies: images with equal pixels.
        near: near duplicates among different pixels.
        plain, controlled: the trivial baselines in both views, see :func:`shortcut_test`.
    """

    items: list[Item]
    unreadable: list[tuple[str, str]]
    odd: list[tuple[int, str]]
    no_split: str | None
    copies: list[Group]
    near: list[Group]
    plain: list[TrivialAuroc]
    controlled: list[TrivialAuroc]

    @property
    def classes(self) -> list[str]:
        """Normal first, then the defect types by name."""
        return sorted({item.defect for item in self.items}, key=lambda defect: (defect != NORMAL, defect))

    def of_class(self, defect: str) -> list[Item]:
        return [item for item in self.items if item.defect == defect]

    @property
    def not_fitted(self) -> tuple[int, int]:
        """How many normals and abnormals the trivial baselines were measured on."""
        other = [item for item in self.items if item.used and item.split != TRAIN]
        abnormal = sum(item.defect != NORMAL for item in other)
        return len(other) - abnormal, abnormal


def audit(source: FolderSource | SyntheticSource) -> Audit:
    """Find out about the images of a source.

    Raises:
        UserError: there are none, or they don't fit the layout.
    """
    if isinstance(source, FolderSource):
        files = examine_all(source)
        items, no_split = _folder_items(files, source)
        unreadable = [(file.record.name, file.error) for file in files if file.error is not None]
        rows = {item.name: row for row, item in enumerate(items)}
        odd = [(rows[file.record.name], "; ".join(file.oddities)) for file in files if file.oddities]
    else:
        items, no_split, unreadable, odd = _rendered_items(source), None, [], []
    copies, near = _duplicates(items)
    return Audit(
        items,
        unreadable,
        sorted(odd),
        no_split,
        copies,
        near,
        plain=shortcut_test(items, PLAIN),
        controlled=shortcut_test(items, CONTROLLED),
    )


def _folder_items(files: Sequence[ExaminedFile], source: FolderSource) -> tuple[list[Item], str | None]:
    photos = [file.photo for file in files if file.photo is not None]
    splits: dict[str, str | None] = {photo.name: photo.split for photo in photos}
    no_split, used = None, set()
    try:
        if not any(photo.defect == NORMAL for photo in photos):
            raise UserError("There are no normal images, which training needs.")
        assigned = {photo.name: photo.split for photo in split_photos(photos, source.fractions, source.seed)}
        splits, used = splits | assigned, set(assigned)
    except UserError as error:
        no_split = printable(str(error))
    items = [
        Item(
            name=file.photo.name,
            defect=printable(file.photo.defect),
            split=splits[file.photo.name],
            used=file.photo.name in used,
            native_size=file.photo.native_size,
            format=file.format,
            plain=file.plain,
            controlled=file.controlled,
            digest=file.photo.digest,
        )
        for file in files
        if file.photo is not None and file.plain is not None and file.controlled is not None
    ]
    return sorted(items, key=_order), no_split


def _rendered_items(source: SyntheticSource) -> list[Item]:
    views = {view: source.in_view(view).tables() for view in (PLAIN, CONTROLLED)}
    items = []
    for split, table in views[PLAIN].items():
        for row, (name, defect) in enumerate(zip(table.paths, table.defects, strict=True)):
            image = table.images[row]
            height, width = table.native_size[row].tolist()
            controlled = views[CONTROLLED][split].images[row]
            digest = image.tobytes().hex()
            items.append(Item(name, defect, split, True, (height, width), "", image, controlled, digest))
    return sorted(items, key=_order)


def _order(item: Item) -> tuple[bool, str, str]:
    return (item.defect != NORMAL, item.defect, item.name)


def _duplicates(items: Sequence[Item]) -> tuple[list[Group], list[Group]]:
    """Groups of equal pixels, and groups of near duplicates, in which each content stands once."""
    same: dict[str, list[int]] = {}
    for row, item in enumerate(items):
        same.setdefault(item.digest, []).append(row)
    copies = sorted((rows for rows in same.values() if len(rows) > 1), key=lambda rows: (-len(rows), rows))
    first = [rows[0] for rows in same.values()]
    pairs = near_pairs([items[row].controlled[..., 0] for row in first])
    near = [[first[index] for index in group] for group in groups_of(pairs, len(first))]
    return [_group(rows, items) for rows in copies], [_group(rows, items) for rows in near]


def _group(rows: list[int], items: Sequence[Item]) -> Group:
    classes = sorted({items[row].defect for row in rows})
    return Group(rows, classes, sorted({str(items[row].split) for row in rows if items[row].split is not None}))


def shortcut_test(items: Sequence[Item], view: str) -> list[TrivialAuroc]:
    """The trivial baselines, fitted to the training's normals; measured on all abnormals and the other normals."""
    fitted = [item for item in items if item.used and item.split == TRAIN]
    other = [item for item in items if item.used and item.split in (VAL, TEST)]
    return measure(table_of(fitted, view), table_of(other, view)) if fitted and other else []


def table_of(items: Sequence[Item], view: str) -> ImageTable:
    """The items as a table."""
    images = [item.plain if view == PLAIN else item.controlled for item in items]
    return ImageTable(
        images=np.array(images, np.uint8),
        paths=[item.name for item in items],
        defects=[item.defect for item in items],
        native_size=np.array([item.native_size for item in items], np.int64),
    )


def class_facts(audit: Audit) -> list[dict[str, Any]]:
    """For each class: counts by split and format, share of small images, and the spread of what a camera decides.

    "brightness" and "contrast" are the mean and the standard deviation of an image's grey levels, "red", "green" and
    "blue" the mean channels, "sharpness" the logarithm of the variance of the Laplacian, "short side" in pixels; each
    as the percentiles 5, 25, 50, 75, 95 over the class's images in the plain view.
    """
    facts = []
    for defect in audit.classes:
        items = audit.of_class(defect)
        sides = np.array([min(item.native_size) for item in items])
        facts.append(
            {
                "name": defect,
                "images": len(items),
                "splits": {split: count for split in SPLITS if (count := sum(item.split == split for item in items))},
                "formats": dict(Counter(item.format for item in items if item.format).most_common()),
                "below_resolution": float((sides < RESOLUTION).mean()),
                "spread": {name: _percentiles(values) for name, values in _features(items, sides).items()},
            }
        )
    return facts


def _features(items: Sequence[Item], sides: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    features: Mapping[str, NDArray[np.float64]] = trivial_features(table_of(items, PLAIN))
    red, green, blue = features["mean colour"].T
    grey = np.array([item.plain.mean(axis=2) for item in items])
    return {
        "short side": sides.astype(np.float64),
        "brightness": grey.mean(axis=(1, 2)),
        "contrast": grey.std(axis=(1, 2)),
        "red": red,
        "green": green,
        "blue": blue,
        "sharpness": features["sharpness"][:, 0],
    }


def _percentiles(values: NDArray[np.float64]) -> list[float]:
    return [round(float(value), 3) for value in np.percentile(values, _PERCENTILES)]
