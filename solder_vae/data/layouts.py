"""Where the images lie on disk and what their folders say about them: four layouts, each read into a list of records.

    class_folders   normal/ and one folder for each defect type; nested folders allowed
    split_folders   train/ validation/ test/normal/ test/anomaly/ as the dataset's authors publish theirs, and
                    MVTec AD's train/good/ test/good/ test/<defect>/, without a validation folder
    manifest        a CSV file with the columns path and label, and optionally split and group

Nothing is decoded here, and no torch is imported.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from solder_vae.data.splits import TEST, TRAIN, VAL
from solder_vae.utils.errors import UserError
from solder_vae.utils.labels import NORMAL
from solder_vae.utils.tables import Row, path_inside, read_table
from solder_vae.utils.text import printable

LAYOUTS = ("auto", "class_folders", "split_folders", "manifest")
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"})
NORMAL_NAMES = frozenset({NORMAL, "good", "ok"})
SPLIT_NAMES = {"train": TRAIN, "validation": VAL, "valid": VAL, "val": VAL, "test": TEST}
MANIFEST = "manifest.csv"


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of an image before it is opened.

    Attributes:
        path: the file.
        defect: defect type, or :data:`NORMAL`.
        split: "train", "val" or "test" where the layout says so.
        group: images of one group (a board, say) never straddle splits.
    """

    path: Path
    defect: str
    split: str | None
    group: str | None

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


def find_records(root: Path, layout: str = "auto") -> list[Record]:
    """List the images under ``root``, sorted by path.

    Args:
        root: a folder, or a manifest's path.
        layout: one of :data:`LAYOUTS`. "auto" takes the manifest if there is one, split folders if there is
            a folder train, class folders otherwise.

    Raises:
        UserError: the root is missing, has no images, or doesn't fit the layout.
    """
    check_root(root)
    manifest = root / MANIFEST if root.is_dir() else root
    if layout == "auto":
        if manifest.is_file():
            layout = "manifest"
        else:
            layout = "split_folders" if TRAIN in _split_folders(root) else "class_folders"
    if layout == "manifest":
        return read_manifest(manifest)
    if not root.is_dir():
        raise UserError(f"{root}: is not a folder, but data.layout={layout} needs one.")
    records = split_folders(root) if layout == "split_folders" else class_folders(root)
    if not records:
        raise UserError(f"{root}: has no images ({' '.join(sorted(SUFFIXES))}) in it or its folders.")
    return records


def class_folders(root: Path) -> list[Record]:
    """Every image's class is its folder: normal below a folder of that name, else the folder's name."""
    defect = cache(partial(_defect, root=root))
    return [Record(path, defect(path.parent), split=None, group=None) for path in image_files(root)]


def split_folders(root: Path) -> list[Record]:
    """Folders train, test and optionally validation; training and validation hold normal images only."""
    folders = _split_folders(root)
    if TRAIN not in folders or TEST not in folders:
        raise UserError(f"{root}: needs folders train and test (and optionally validation) for this layout.")
    records = []
    for split, folder in folders.items():
        defect_in = cache(partial(_defect, root=folder))
        for path in image_files(folder):
            # If all images are normal, the folder good may be left out: train/1.png for train/good/1.png.
            bare = split != TEST and path.parent == folder
            defect = NORMAL if bare else defect_in(path.parent)
            if split != TEST and defect != NORMAL:
                raise UserError(
                    f"{path.parent}: is no folder of normal images ({', '.join(sorted(NORMAL_NAMES))}), but "
                    f"{folder.name} may hold no others; move it to {folders[TEST].name}."
                )
            records.append(Record(path, defect, split, group=None))
    return records


def _split_folders(root: Path) -> dict[str, Path]:
    if not root.is_dir():
        return {}
    found: dict[str, Path] = {}
    for folder in sorted(root.iterdir()):
        split = SPLIT_NAMES.get(folder.name.lower())
        if split and folder.is_dir():
            if split in found:
                raise UserError(f"{root}: has both {found[split].name} and {folder.name}; keep one of them.")
            found[split] = folder
    return found


def _defect(folder: Path, root: Path) -> str:
    folders = folder.relative_to(root).parts
    if not folders:
        raise UserError(
            f"{root}: has images directly in it, whose class is unknown; put them into folders, normal/ and one "
            "for each defect type."
        )
    return NORMAL if any(name.lower() in NORMAL_NAMES for name in folders) else folders[-1]


def image_files(root: Path) -> list[Path]:
    """All images under a folder by suffix (in either case), sorted; hidden files and folders are left out.

    Symbolic links are followed, but no folder is entered twice, so that loops end.
    """
    return list(_walk(root, seen=set()))


def _walk(folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
    try:
        status = folder.stat()
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{folder}: can't be read ({error.strerror}); check the permissions.") from error
    if (status.st_dev, status.st_ino) in seen:
        return
    seen.add((status.st_dev, status.st_ino))
    for entry in entries:
        if entry.name.startswith("."):  # .git, and the ._name.png that macOS leaves beside name.png
            continue
        path = Path(entry.path)
        link = entry.is_symlink()
        kind = path if link else entry  # the listing tells files from folders, without a system call for each
        if kind.is_dir():
            yield from _walk(path, seen)
        # A broken link is listed, too, so that reading it tells what is wrong.
        elif path.suffix.lower() in SUFFIXES and (link or kind.is_file()):
            yield path


def read_manifest(path: Path) -> list[Record]:
    """Read a CSV file, see :func:`~solder_vae.utils.tables.read_table`.

    Columns: ``path`` relative to the manifest's folder; ``label``, normal (also good, ok) or the defect type;
    optionally ``split`` (train, val or validation, test) and ``group``. Other columns are ignored. Paths may
    not leave the manifest's folder, so that a manifest from somebody else can't make the command read other files.

    Raises:
        UserError: the file can't be read, or some of its lines are wrong; all of these are listed.
    """
    rows = read_table(path, ("path", "label"))
    records: list[Record] = []
    wrong: list[str] = []
    lines: dict[Path, int] = {}
    for line, row in rows:
        try:
            record = _manifest_row(path.parent, row)
            if record.path in lines:
                raise UserError(f"{row['path']} is listed in line {lines[record.path]} already")
            lines[record.path] = line
            records.append(record)
        except UserError as error:
            wrong.append(f"line {line}: {error}")
    given = sum(record.split is not None for record in records)
    if 0 < given < len(records):
        wrong.append(f"{given} of {len(records)} lines give a split; give it in all lines or in none")
    if wrong:
        raise UserError(f"{path}: has errors; mend these lines:\n  " + "\n  ".join(wrong))
    return sorted(records, key=lambda record: record.path)


def _manifest_row(folder: Path, row: Row) -> Record:
    name, label, split, group = (row.get(key, "") for key in ("path", "label", "split", "group"))
    if not name or not label:
        raise UserError("path or label is missing")
    path = path_inside(folder, name)
    defect = NORMAL if label.lower() in NORMAL_NAMES else label
    if split and split.lower() not in SPLIT_NAMES:
        raise UserError(f"unknown split {split}; use train, validation or test")
    split_name = SPLIT_NAMES[split.lower()] if split else None
    if defect != NORMAL and split_name in (TRAIN, VAL):
        raise UserError(f"{name} is labelled {label}, but only normal images train and validate; use test")
    return Record(path, defect, split_name, group or None)
