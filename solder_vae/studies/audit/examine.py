"""What an audit finds out about a data set, in numbers and lists; :mod:`solder_vae.studies.audit.verdict` judges."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solder_vae.data.controlled import RESOLUTION
from solder_vae.data.folder import FolderSource, split_photos
from solder_vae.data.framing import SQUARE
from solder_vae.data.image_files import Image
from solder_vae.data.photos import Photo, PhotoImages
from solder_vae.data.splits import SPLITS, TEST, TRAIN, VAL
from solder_vae.data.synthetic.source import SyntheticSource
from solder_vae.data.table import Images
from solder_vae.data.transforms import CONTROLLED, PLAIN, VIEWS
from solder_vae.evaluation.baselines import (
    MEAN_COLOUR,
    SHARPNESS,
    Features,
    TrivialAuroc,
    aurocs,
    distances,
    named_features,
)
from solder_vae.studies.audit.duplicates import near_groups
from solder_vae.studies.audit.files import ExaminedFile, ImageFeatures, examine_all, looks_of
from solder_vae.utils.errors import UserError
from solder_vae.utils.labels import NORMAL
from solder_vae.utils.text import printable
from solder_vae.utils.threads import busy

_PERCENTILES = (5, 25, 50, 75, 95)


@dataclass(frozen=True, slots=True)
class AuditedImage:
    """One readable image.

    Attributes:
        name: printable.
        defect: defect type, or "normal".
        split: "train", "val" or "test", as the layout gives it or a run would split; None if no split is possible.
        used: False if a run would leave it out, as the copy of an image of another given split.
        native_size: height and width in pixels.
        format: of the file; "" where there is none.
        digest: equal iff all pixels are.
        looks: what was measured of it.
    """

    name: str
    defect: str
    split: str | None
    used: bool
    native_size: tuple[int, int]
    format: str
    digest: str
    looks: ImageFeatures


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
    """All facts that the audit found.

    Attributes:
        items: the readable images, normals first, then by class and name.
        pictures: of the items, by view; not all in memory.
        unreadable: name and reason of the others.
        odd: row of an item, and what is suspicious about it.
        no_split: why a run could not split these images; None if it could.
        copies: images with equal pixels.
        near: near duplicates among different pixels.
        plain, controlled: the trivial baselines in both views, see :func:`shortcut_test`.
        crop: of the source.
    """

    items: list[AuditedImage]
    pictures: Mapping[str, Images]
    unreadable: list[tuple[str, str]]
    odd: list[tuple[int, str]]
    no_split: str | None
    copies: list[Group]
    near: list[Group]
    plain: list[TrivialAuroc]
    controlled: list[TrivialAuroc]
    crop: str = SQUARE

    @property
    def classes(self) -> list[str]:
        """Normal first, then the defect types by name."""
        return sorted({item.defect for item in self.items}, key=lambda defect: (defect != NORMAL, defect))

    def rows_of(self, defect: str) -> list[int]:
        """The class's rows of the items."""
        return [row for row, item in enumerate(self.items) if item.defect == defect]

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
    pictures: Mapping[str, Images]
    if isinstance(source, FolderSource):
        files, kept = examine_all(source)
        files.sort(key=lambda file: _order(file.record.defect, file.record.name))
        items, no_split = _folder_items(files, source)
        photos = [file.photo for file in files if file.photo is not None]
        pictures = {
            PLAIN: PhotoImages(photos, source.image_size, PLAIN, {}, source.crop),
            CONTROLLED: _controlled(photos, source.image_size, kept, source.crop),
        }
        unreadable = [(file.record.name, file.error) for file in files if file.error is not None]
        rows = {item.name: row for row, item in enumerate(items)}
        odd = [(rows[file.record.name], "; ".join(file.warnings)) for file in files if file.warnings]
    else:
        items, pictures = _rendered(source)
        no_split, unreadable, odd = None, [], []
    copies, near = _duplicates(items, pictures[CONTROLLED])
    with busy("Looking for shortcuts"):
        plain, controlled = shortcut_test(items, PLAIN), shortcut_test(items, CONTROLLED)
    facts = (items, pictures, unreadable, sorted(odd), no_split, copies, near)
    return Audit(*facts, plain=plain, controlled=controlled, crop=source.crop)


def _controlled(photos: Sequence[Photo], image_size: int, kept: Mapping[str, Image], crop: str) -> Images:
    """The pictures in the controlled view; in one array, which is several times faster, if all were kept."""
    if not photos or not all(photo.digest in kept for photo in photos):
        return PhotoImages(photos, image_size, CONTROLLED, kept, crop)
    grey = np.array([kept[photo.digest] for photo in photos])
    return np.broadcast_to(grey, (*grey.shape[:-1], 3))


def _folder_items(files: Sequence[ExaminedFile], source: FolderSource) -> tuple[list[AuditedImage], str | None]:
    photos = [file.photo for file in files if file.photo is not None]
    splits: dict[str, str | None] = {photo.name: photo.split for photo in photos}
    no_split, used = None, set()
    try:
        if not any(photo.defect == NORMAL for photo in photos):
            raise UserError("There are no normal images, which training needs.")
        split = split_photos(photos, source.fractions, source.seed, source.alike)
        assigned = {photo.name: photo.split for photo in split}
        splits, used = splits | assigned, set(assigned)
    except UserError as error:
        no_split = printable(str(error))
    items = [
        AuditedImage(
            name=file.photo.name,
            defect=printable(file.photo.defect),
            split=splits[file.photo.name],
            used=file.photo.name in used,
            native_size=file.photo.native_size,
            format=file.format,
            digest=file.photo.digest,
            looks=file.looks,
        )
        for file in files
        if file.photo is not None and file.looks is not None
    ]
    return items, no_split


def _rendered(source: SyntheticSource) -> tuple[list[AuditedImage], Mapping[str, Images]]:
    """The items, and their pictures by view."""
    views = {view: source.in_view(view).tables() for view in VIEWS}
    items = []
    for split, table in views[PLAIN].items():
        of_both = zip(table.images, views[CONTROLLED][split].images, strict=True)
        facts = zip(table.paths, table.defects, table.native_size.tolist(), of_both, strict=True)
        for name, defect, (height, width), (plain, controlled) in facts:
            digest = blake2b(plain.tobytes(), digest_size=16).hexdigest()
            items.append(
                AuditedImage(name, defect, split, True, (height, width), "", digest, looks_of(plain, controlled))
            )
    order = sorted(range(len(items)), key=lambda row: _order(items[row].defect, items[row].name))
    pictures = {view: np.concatenate([table.images[:] for table in views[view].values()])[order] for view in VIEWS}
    return [items[row] for row in order], pictures


def _order(defect: str, name: str) -> tuple[bool, str, str]:
    """Normals first, then by class and name."""
    return (defect != NORMAL, defect, name)


def _duplicates(items: Sequence[AuditedImage], controlled: Images) -> tuple[list[Group], list[Group]]:
    """Groups of equal pixels, and groups of near duplicates, in which each content stands once."""
    same: dict[str, list[int]] = {}
    for row, item in enumerate(items):
        same.setdefault(item.digest, []).append(row)
    copies = sorted((rows for rows in same.values() if len(rows) > 1), key=lambda rows: (-len(rows), rows))
    first = np.array([rows[0] for rows in same.values()], np.int64)
    hashes = np.array([items[row].looks.hash for row in first], np.uint64)
    near = [first[group].tolist() for group in near_groups(hashes, controlled, first)]
    return [_group(rows, items) for rows in copies], [_group(rows, items) for rows in near]


def _group(rows: list[int], items: Sequence[AuditedImage]) -> Group:
    classes = sorted({items[row].defect for row in rows})
    return Group(rows, classes, sorted({str(items[row].split) for row in rows if items[row].split is not None}))


def shortcut_test(items: Sequence[AuditedImage], view: str) -> list[TrivialAuroc]:
    """The trivial baselines, fitted to the training normals; measured on all abnormals and the other normals."""
    fitted = [item for item in items if item.used and item.split == TRAIN]
    other = [item for item in items if item.used and item.split in (VAL, TEST)]
    labels = np.array([item.defect != NORMAL for item in other], np.int64)
    if not fitted or not 0 < labels.sum() < len(labels):
        return []
    scores = distances(features_of(fitted, view), features_of(other, view))
    return aurocs(scores, labels, [item.defect for item in other])


def features_of(items: Sequence[AuditedImage], view: str) -> Features:
    """The features that the trivial baselines look at."""
    looks = [item.looks.plain if view == PLAIN else item.looks.controlled for item in items]
    return named_features(looks, np.array([item.native_size for item in items], np.int64))


def class_facts(audit: Audit) -> list[dict[str, Any]]:
    """For each class: counts by split and format, share of small images, and the spread of what the camera determines.

    "brightness" and "contrast" are the mean and the standard deviation of an image's grey levels, "red", "green" and
    "blue" the mean channels, "sharpness" the logarithm of the variance of the Laplacian, "short side" in pixels; each
    as the percentiles 5, 25, 50, 75, 95 over the class's images in the plain view.
    """
    facts = []
    for defect in audit.classes:
        items = [audit.items[row] for row in audit.rows_of(defect)]
        spread = _spread(items)
        facts.append(
            {
                "name": defect,
                "images": len(items),
                "splits": {split: count for split in SPLITS if (count := sum(item.split == split for item in items))},
                "formats": dict(Counter(item.format for item in items if item.format).most_common()),
                "below_resolution": float((spread["short side"] < RESOLUTION).mean()),
                "spread": {
                    name: [round(value, 3) for value in np.percentile(values, _PERCENTILES).tolist()]
                    for name, values in spread.items()
                },
            }
        )
    return facts


def _spread(items: Sequence[AuditedImage]) -> dict[str, NDArray[np.float64]]:
    features = features_of(items, PLAIN)
    red, green, blue = features[MEAN_COLOUR].T
    return {
        "short side": np.array([min(item.native_size) for item in items], np.float64),
        "brightness": features[MEAN_COLOUR].mean(axis=1),
        "contrast": np.array([item.looks.contrast for item in items]),
        "red": red,
        "green": green,
        "blue": blue,
        "sharpness": features[SHARPNESS][:, 0],
    }
