"""Known defects: those that may be learnt from, which are therefore kept out of the test, and of all else.

What belongs with a known defect (equal pixels, or the same group, through any number of steps) leaves the test, too.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

from solder_vae.data.layouts import MANIFEST, Record, find_records
from solder_vae.data.listing import list_images
from solder_vae.data.photos import Photo
from solder_vae.data.splits import KNOWN, TEST, apportion_evenly, connect
from solder_vae.utils.errors import UserError
from solder_vae.utils.labels import NORMAL
from solder_vae.utils.text import printable

log = logging.getLogger(__name__)

ALL = "all"


def check_known(known: object) -> int | str | None:
    """``data.known`` as it is meant: a number of defects (None for 0), "all", or a folder's path.

    Raises:
        UserError: it is none of these.
    """
    if known is None or known is False or known == 0:
        return None
    if isinstance(known, int) and not isinstance(known, bool) and known > 0:
        return known
    what = "give a whole number of defects from 0 on, all, or the folder of some."
    if isinstance(known, str | Path):
        if str(known) == ALL or Path(known).exists():
            return str(known)
        if not _is_number(str(known)):
            raise UserError(f"data.known={known} does not exist: {what}")
    raise UserError(f"data.known={known} does not fit: {what}")


def _is_number(text: str) -> bool:
    """Whether a text, in which an option's number may come, is one."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def known_records(known: int | str | None, normal: Sequence[str], skip: bool) -> list[Record]:
    """The defects of a folder or manifest that ``data.known`` names; normals in it are left out with a warning.

    Pictures directly in the folder are of the type that it is called by.

    Raises:
        UserError: there are none.
    """
    if not isinstance(known, str) or known == ALL:
        return []
    root = Path(known)
    if root.is_dir() and not (root / MANIFEST).is_file() and not any(path.is_dir() for path in root.iterdir()):
        listing = list_images(root)
        listing.tell()
        records = [Record(path, root.resolve().name, None, None) for path in listing.images]
    else:
        records = find_records(root, "manifest" if root.is_file() else "auto", normal, skip)
    defects = [replace(record, split=KNOWN) for record in records if record.defect != NORMAL]
    if not defects:
        raise UserError(f"data.known={known} has no defective images: give a folder that has some, or a number.")
    if len(defects) < len(records):
        log.warning("%s: its %d normal images are not used.", printable(known), len(records) - len(defects))
    return defects


def set_aside(photos: Sequence[Photo], known: int | str | None) -> tuple[list[Photo], list[Photo]]:
    """Before splitting: the known defects that are given as such, and the photos that have other pixels.

    Args:
        photos: all of them; those whose split is "known" are known.
        known: ``data.known``; "all" takes every defect that is not for training or validation.

    Raises:
        UserError: a number is asked for where the known defects are given already.
    """
    given = [photo for photo in photos if photo.split == KNOWN]
    if given and isinstance(known, int):
        raise UserError(
            f"data.known={known} does not fit {len(given)} images whose split is known already: leave one of them out."
        )
    if known == ALL:
        given += [photo for photo in photos if photo.defect != NORMAL and photo.split != KNOWN]
    apart = {id(photo) for photo in given}
    digests = {photo.digest for photo in given}
    others = [photo for photo in photos if id(photo) not in apart]
    kept = [photo for photo in others if photo.digest not in digests]
    if len(kept) < len(others):
        log.warning("Left out %d images that have the same pixels as a known defect.", len(others) - len(kept))
    once = {photo.digest: photo for photo in reversed(given)}
    return [replace(photo, split=KNOWN) for photo in once.values()][::-1], kept


def with_known(
    photos: Sequence[Photo],
    known: int | str | None,
    seed: int,
    alike: Callable[[Sequence[Photo]], Sequence[int | None]],
) -> list[Photo]:
    """After splitting: the photos with the known defects, and without the test images that belong with these.

    Args:
        photos: with their splits; given known defects among them.
        known: ``data.known``; a number is drawn from the test's defects.
        seed: of the draw.
        alike: each photo's group of look-alikes among the defects, None for none.

    Raises:
        UserError: there are fewer defects, or none would be left for the test.
    """
    photos = list(photos)
    if not isinstance(known, int) and not any(photo.split == KNOWN for photo in photos):
        return photos
    keys: list[Sequence[Hashable]] = [[photo.digest for photo in photos]]
    if known != ALL:  # else no defect is tested, so that a board's normals may stay
        keys += [[photo.group for photo in photos], alike(photos)]
    parts = connect(*keys)
    if isinstance(known, int):
        for index in draw(photos, known, seed, parts):
            photos[index] = replace(photos[index], split=KNOWN)
    left_out: set[int] = set()
    for part in parts:
        if any(photos[index].split == KNOWN for index in part):
            left_out |= {index for index in part if photos[index].split == TEST}
    if left_out:
        log.info(
            "%d images leave the test, since they are copies of known defects, or in a group with one.", len(left_out)
        )
    kept = [photo for index, photo in enumerate(photos) if index not in left_out]
    tested = any(photo.split == TEST and photo.defect != NORMAL for photo in kept)
    if known != ALL and not tested and (isinstance(known, int) or left_out):
        given = "The known defects that are given" if known is None else f"data.known={known}"
        raise UserError(
            f"{given} would leave no defect for the test: {len(left_out)} images are copies of known defects, or in a "
            "group with one. Use fewer, or data.known=all to test without."
        )
    return sorted(kept, key=Photo.sort_key)


def draw(photos: Sequence[Photo], number: int, seed: int, parts: Sequence[Sequence[int]]) -> list[int]:
    """A number of the test's defects, drawn evenly over their types; of copies one only.

    Of two candidates the one comes first whose part has a known defect already, so that little else leaves the test.
    The draw depends on content, parts and seed, and a larger number adds to a smaller one where each part is one image.

    Args:
        photos: with their splits.
        number: of defects.
        seed: of the draw.
        parts: indices of the photos that belong together.

    Raises:
        UserError: there are fewer.
    """
    part_of = {index: place for place, part in enumerate(parts) for index in part}
    queues: dict[str, list[int]] = defaultdict(list)
    seen: set[str] = set()
    for index in sorted(range(len(photos)), key=lambda index: _shuffled(seed, photos[index])):
        photo = photos[index]
        if photo.split == TEST and photo.defect != NORMAL and photo.digest not in seen:
            seen.add(photo.digest)
            queues[photo.defect].append(index)
    available = {defect: len(queue) for defect, queue in sorted(queues.items())}
    if number >= (total := sum(available.values())):
        raise UserError(
            f"data.known={number} leaves no defect for the test, since there are {total} different ones "
            f"({_counts(available)}): use {max(total // 2, 1)} or less, or data.known=all to test without."
            if total > 1
            else f"data.known={number} needs more defects than the {total} that the test has: give a folder of some."
        )
    chosen: list[int] = []
    opened: set[int] = set()
    for defect, count in zip(available, apportion_evenly(number, list(available.values()), seed), strict=True):
        queue = queues[defect]
        for _ in range(count):
            index = next((index for index in queue if part_of[index] in opened), queue[0])
            queue.remove(index)
            opened.add(part_of[index])
            chosen.append(index)
    return chosen


def _shuffled(seed: int, photo: Photo) -> tuple[bytes, str]:
    return blake2b(f"known {seed} {photo.digest}".encode(), digest_size=16).digest(), str(photo.path)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {printable(defect)}" for defect, count in counts.items())


def types_of(defects: Sequence[str]) -> dict[str, int]:
    """How many known defects there are of each type, by name."""
    return dict(sorted(Counter(defects).items()))
