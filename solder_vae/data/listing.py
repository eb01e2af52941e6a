"""Which files below a folder are images, and what was left out, so that nothing is left out without a word."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from solder_vae.data.names import SUFFIXES, UNREAD_SUFFIXES, holds_masks, is_mask, is_system
from solder_vae.utils.errors import UserError
from solder_vae.utils.text import printable

log = logging.getLogger(__name__)


@dataclass
class Listing:
    """What is in a folder, of all depths.

    Attributes:
        images: the images, sorted by path.
        masks: folders and files that hold masks, by their names.
        unread: pictures in formats that are not read.
        denied: why a folder or file can't be looked at.
    """

    images: list[Path] = field(default_factory=list)
    masks: list[Path] = field(default_factory=list)
    unread: list[Path] = field(default_factory=list)
    denied: list[str] = field(default_factory=list)

    @property
    def incomplete(self) -> bool:
        """Whether there is something that should have been read and was not."""
        return bool(self.unread or self.denied)

    def sentences(self) -> list[str]:
        """What was left out, a sentence for each kind."""
        said = []
        if self.unread:
            counts = sorted(Counter(path.suffix.lower() for path in self.unread).items())
            listed = ", ".join(f"{count} {suffix}" for suffix, count in counts)
            said.append(f"Left out {_many(len(self.unread), 'picture')} of formats that are not read: {listed}.")
        if self.masks:
            said.append(
                f"Left out {_many(len(self.masks), 'folder or file', 'folders and files')} that hold masks by their "
                f"names, such as {printable(str(self.masks[0]))}; if these are photographs, give them another name."
            )
        if self.denied:
            said.append(f"Left out {_many(len(self.denied), 'folder or file', 'folders and files')}: {self.denied[0]}")
        return said

    def tell(self) -> None:
        """Say in the log what was left out."""
        for sentence in self.sentences():
            log.warning("%s", sentence)


def list_images(root: Path, listing: Listing | None = None) -> Listing:
    """All images under a folder by suffix (in either case), sorted; hidden files and those of systems don't count.

    Symbolic links are followed, but no folder is entered twice, so that loops end. Nothing is said yet of what was
    left out.

    Args:
        root: the folder.
        listing: what to add to.

    Raises:
        UserError: the folder itself can't be read.
    """
    listing = Listing() if listing is None else listing
    before = len(listing.denied)
    if not _walk(root, listing, set(), ()):
        raise UserError(listing.denied[before])
    return listing


def _walk(folder: Path, listing: Listing, seen: set[tuple[int, int]], above: Collection[str]) -> bool:
    """Whether the folder could be read; ``above`` are stems of the pictures in the folder that it is in."""
    try:
        status = folder.stat()
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        listing.denied.append(f"{printable(str(folder))}: can't be read ({error.strerror}); check the permissions.")
        return False
    if (status.st_dev, status.st_ino) in seen:
        return True
    seen.add((status.st_dev, status.st_ino))
    entries = [entry for entry in entries if not is_system(entry.name)]
    names = {entry.name.lower() for entry in entries}
    stems = {stem for stem, _, suffix in (name.rpartition(".") for name in names) if f".{suffix}" in SUFFIXES}
    around = stems.union(above)
    for entry in entries:
        path = Path(entry.path)
        suffix = path.suffix.lower()
        link = entry.is_symlink()
        kind = path if link else entry  # the listing tells files from folders, without a system call for each
        try:
            directory = kind.is_dir()
        except OSError as error:  # a link into a folder that is closed
            listing.denied.append(f"{printable(str(path))}: can't be read ({error.strerror}); check the permissions.")
            continue
        if directory:
            if holds_masks(entry.name, names):
                listing.masks.append(path)
            else:
                _walk(path, listing, seen, stems)
        elif suffix in UNREAD_SUFFIXES:
            listing.unread.append(path)
        # A broken link is listed, too, so that reading it tells what is wrong.
        elif suffix in SUFFIXES and (link or kind.is_file()):
            (listing.masks if is_mask(path.stem, around) else listing.images).append(path)
    return True


def _many(count: int, one: str, several: str | None = None) -> str:
    return f"{count} {one if count == 1 else several or one + 's'}"
