"""Where the images lie on disk and what their folders say about them: four layouts, each read into a list of records.

    class_folders   normal/ and one folder for each defect type; nested folders allowed
    split_folders   train/ validation/ test/normal/ test/anomaly/ as the dataset's authors publish theirs, and
                    MVTec AD's train/good/ test/good/ test/<defect>/, without a validation folder
    manifest        a CSV file with the columns path and label, and optionally split, group and type

Nothing is decoded here, and no torch is imported.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from solder_vae.data.listing import Listing, list_images
from solder_vae.data.names import NORMAL_NAMES, SUFFIXES, class_of, split_of
from solder_vae.data.splits import KNOWN, TEST, TRAIN, VAL
from solder_vae.utils.errors import UserError
from solder_vae.utils.labels import NORMAL, UNDECIDED, by_a_model
from solder_vae.utils.tables import Row, path_to_read, read_table
from solder_vae.utils.text import printable

log = logging.getLogger(__name__)

LAYOUTS = ("auto", "class_folders", "split_folders", "manifest")
MANIFEST = "manifest.csv"
ANEW = "or have all images split anew with data.layout=class_folders"


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of an image before it is opened.

    Attributes:
        path: the file.
        defect: defect type, or :data:`NORMAL`.
        split: "train", "val", "test" or "known" where the layout says so.
        group: images of one group (a board, say) never straddle splits.
        type: of the component, such as R0603; "" where it is not known.
    """

    path: Path
    defect: str
    split: str | None
    group: str | None
    type: str = field(default="", kw_only=True)

    @property
    def name(self) -> str:
        """The path, printable."""
        return printable(str(self.path))


def check_root(root: str | Path | None) -> None:
    """Check that there is something at ``data.root``.

    Raises:
        UserError: it is not given, or nothing is there.
    """
    if root is None:
        raise UserError("data.root is not set: give data.root=PATH of your images.")
    if not Path(root).exists():
        raise UserError(f"{root}: does not exist; give data.root=PATH of your images.")


def normal_names(names: object, key: str) -> tuple[str, ...]:
    """Names of the normal class as an option gives them, in lower case.

    Raises:
        UserError: they are no names.
    """
    given = [names] if isinstance(names, str) else list(names) if isinstance(names, Iterable) else []
    cleaned = tuple(str(name).strip().lower() for name in given)
    if not cleaned or not all(cleaned):
        raise UserError(f"{key}={names} does not fit: give names of folders, such as [ok_front,non_defective].")
    return cleaned


def find_records(
    root: Path,
    layout: str = "auto",
    normal: Collection[str] = NORMAL_NAMES,
    skip: bool = False,
    listing: Listing | None = None,
) -> list[Record]:
    """List the images under ``root``, sorted by path; the log says what was left out.

    Args:
        root: a folder, or a manifest's path.
        layout: one of :data:`LAYOUTS`. "auto" takes the manifest if there is one, split folders if there is
            a folder train, or folders train and test further down; class folders otherwise.
        normal: names of the normal class, in lower case.
        skip: whether to go on without folders that can't be read.
        listing: what to fill with what was found and left out.

    Raises:
        UserError: the root is missing, has no images, can't be read or doesn't fit the layout.
    """
    check_root(root)
    manifest = root / MANIFEST if root.is_dir() else root
    if layout == "manifest" or (layout == "auto" and manifest.is_file()):
        return read_manifest(manifest, normal)
    if not root.is_dir():
        raise UserError(f"{root}: is not a folder, but data.layout={layout} needs one.")
    listing = Listing() if listing is None else listing
    folders = _split_folders(root)
    if layout == "auto" and TRAIN in folders:
        layout = "split_folders"
    if layout == "split_folders" and folders:
        if TRAIN not in folders or TEST not in folders:
            raise UserError(
                f"{root}: needs folders train and test (and optionally validation) for this layout, {ANEW}."
            )
        for folder in folders.values():
            list_images(folder, listing)
    else:
        list_images(root, listing)
    if listing.denied and not skip:
        more = f" (and {len(listing.denied) - 1} more)" if len(listing.denied) > 1 else ""
        raise UserError(f"{listing.denied[0]}{more} data.on_bad_file=skip goes on without.")
    if layout == "split_folders" or (layout == "auto" and _splits_are_given(root, listing.images)):
        records = split_folders(root, listing.images, normal)
    else:
        records = class_folders(root, listing.images, normal)
    listing.tell()
    if not records:
        left_out = "".join(f" {sentence}" for sentence in listing.sentences())
        raise UserError(f"{root}: has no images ({' '.join(sorted(SUFFIXES))}) in it or its folders.{left_out}")
    _tell_of_empty_classes(root, records, listing, normal)
    return records


def class_folders(root: Path, images: Sequence[Path], normal: Collection[str] = NORMAL_NAMES) -> list[Record]:
    """Every image's class is its folder: the deepest that tells good from bad decides, else it is a defect type."""

    @cache
    def defect(folder: Path) -> str:
        return class_of(_inside(root, folder), normal)

    return [Record(path, defect(path.parent), split=None, group=None) for path in images]


def split_folders(root: Path, images: Sequence[Path], normal: Collection[str] = NORMAL_NAMES) -> list[Record]:
    """Folders train, test and optionally validation; training and validation hold normal images only."""

    @cache
    def place(folder: Path) -> tuple[str, str]:
        names = folder.relative_to(root).parts
        at = next((at for at, name in enumerate(names) if split_of(name)), None)
        if at is None:
            raise UserError(f"{folder}: is in no folder train, validation or test, but has images; move them, {ANEW}.")
        split = str(split_of(names[at]))
        rest = names[:at] + names[at + 1 :]
        # If all images are normal, the folder good may be left out: train/1.png for train/good/1.png.
        if split != TEST and not rest:
            return NORMAL, split
        defect = class_of(rest or _inside(folder, folder), normal)
        if split != TEST and defect != NORMAL:
            raise UserError(
                f"{folder}: is no folder of normal images ({', '.join(sorted(normal))}), but {names[at]} may hold no "
                f"others; move it to the test, {ANEW}, or name the normal ones: data.normal=[{names[-1]}]."
            )
        return defect, split

    places = [(path, *place(path.parent)) for path in images]
    return [Record(path, defect, split, group=None) for path, defect, split in places]


def _splits_are_given(root: Path, images: Sequence[Path]) -> bool:
    """Whether all images are in folders that name splits, some of them for training and some for testing."""
    found = set()
    for folder in {path.parent for path in images}:
        found.add(next(filter(None, map(split_of, folder.relative_to(root).parts)), None))
    if {TRAIN, TEST} <= found and None in found:
        log.warning("%s: has folders train and test, but other images, too; all are split anew.", root)
    return {TRAIN, TEST} <= found and None not in found


def _tell_of_empty_classes(root: Path, records: Sequence[Record], listing: Listing, normal: Collection[str]) -> None:
    """Name the classes that have pictures, but none that can be read."""
    there = {record.defect for record in records}
    names = (path.parent.relative_to(root).parts for path in listing.unread)
    lost = {class_of(folders, normal) for folders in names if folders} - there
    for defect in sorted(name for name in lost if not split_of(name)):
        log.warning("The class %s has no picture that can be read.", printable(defect))


def _split_folders(root: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    try:
        folders = sorted(root.iterdir())
    except OSError as error:
        raise UserError(f"{root}: can't be read ({error.strerror}); check the permissions.") from error
    for folder in folders:
        split = split_of(folder.name)
        if split and folder.is_dir():
            if split in found:
                raise UserError(f"{root}: has both {found[split].name} and {folder.name}; keep one of them, {ANEW}.")
            found[split] = folder
    return found


def _inside(root: Path, folder: Path) -> tuple[str, ...]:
    folders = folder.relative_to(root).parts
    if not folders:
        raise UserError(
            f"{root}: has images directly in it, whose class is unknown; put them into folders, normal/ and one "
            "for each defect type."
        )
    return folders


def read_manifest(path: Path, normal: Collection[str] = NORMAL_NAMES) -> list[Record]:
    """Read a CSV file, see :func:`~solder_vae.utils.tables.read_table`.

    Columns: ``path``, absolute or relative to the manifest's folder and below it; ``label``, normal (also good, ok)
    or the defect type; optionally ``split`` (train, val or validation, test, known), ``group`` and ``type``. Other
    columns are ignored, and so are lines that are labelled undecided, as the report of an inspection saves them.

    Raises:
        UserError: the file can't be read, its labels are a model's, or some of its lines are wrong; all of these are
            listed.
    """
    everything = read_table(path, ("path", "label"))
    if everything and by_a_model(everything[0][1]):
        raise UserError(
            f"{path}: is a table of predict, whose label is what the model called a joint, not what it is: save the "
            "verdicts in report.html, or take the column rank away once the labels are yours."
        )
    rows = [(line, row) for line, row in everything if row["label"].lower() != UNDECIDED]
    if not rows:
        raise UserError(f"{path}: all of its {len(everything)} joints are undecided; decide some of them.")
    if undecided := len(everything) - len(rows):
        log.info("%s: %d undecided joints are left out.", printable(str(path)), undecided)
    records: list[Record] = []
    wrong: list[str] = []
    lines: dict[Path, int] = {}
    for line, row in rows:
        try:
            record = _manifest_row(path.parent, row, normal)
            if record.path in lines:
                raise UserError(f"{row['path']} is listed in line {lines[record.path]} already")
            lines[record.path] = line
            records.append(record)
        except UserError as error:
            wrong.append(f"line {line}: {error}")
    others = [record for record in records if record.split != KNOWN]  # those may stand beside lines without a split
    given = sum(record.split is not None for record in others)
    if 0 < given < len(others):
        wrong.append(f"{given} of {len(others)} lines give a split; give it in all lines or in none")
    if wrong:
        raise UserError(f"{path}: has errors; mend these lines:\n  " + "\n  ".join(wrong))
    return sorted(records, key=lambda record: record.path)


def _manifest_row(folder: Path, row: Row, normal: Collection[str]) -> Record:
    name, label, split, group = (row.get(key, "") for key in ("path", "label", "split", "group"))
    if not name or not label:
        raise UserError("path or label is missing")
    path = path_to_read(folder, name)
    defect = NORMAL if label.lower() in normal else label
    split_name = KNOWN if split.lower() == KNOWN else split_of(split)
    if split and split_name is None:
        raise UserError(f"unknown split {split}; use train, validation, test or known")
    if defect == NORMAL and split_name == KNOWN:
        raise UserError(f"{name} is labelled {label}, but only defects can be known; use train, validation or test")
    if defect != NORMAL and split_name in (TRAIN, VAL):
        raise UserError(f"{name} is labelled {label}, but only normal images train and validate; use test")
    return Record(path, defect, split_name, group or None, type=row.get("type", ""))


def with_group(record: Record, regex: str) -> Record:
    """The record with the group that its file's name tells; a manifest's own group comes first.

    Raises:
        UserError: the name does not match.
    """
    if record.group is not None:
        return record
    match = re.search(regex, record.path.name)
    if match is None or match[1] is None:
        raise UserError(f"{record.name}: doesn't match data.group_regex={regex}; mend that or rename the file.")
    return replace(record, group=match[1])
