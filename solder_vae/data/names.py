"""What names of files and folders say: picture or mask, good or bad, training or test, or nothing of ours."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from solder_vae.data.splits import TEST, TRAIN, VAL
from solder_vae.utils.labels import NORMAL

_READ = """
.png .apng .jpg .jpeg .jpe .jfif .jif .tif .tiff .bmp .dib .webp .jp2 .j2k .j2c .jpc .pbm .pgm .ppm .pnm .ras .sr
"""
_UNREAD = """
.gif .avif .heic .heif .hif .jxl .jxr .wdp .tga .pcx .psd .pam .pfm .exr .hdr .svg .ico .dds .sgi .xcf .dcm .fits
.dng .cr2 .cr3 .nef .arw .raf .orf .rw2 .pef .srw
"""
SUFFIXES = frozenset(_READ.split())
"""Of pictures that are read."""

UNREAD_SUFFIXES = frozenset(_UNREAD.split())
"""Of pictures that are not read: they are counted, so that none is left out without a word."""

NORMAL_NAMES = (NORMAL, "good", "ok")
"""Names of the normal class, in either case, unless ``data.normal`` gives others."""

_ALONE = """
ng nok nio ko bad defect defects defective abnormal abnormals anomaly anomalies anomalous fail fails failed fault faults
faulty reject rejects rejected scrap
"""
_WITH_OTHERS = "ng nok defect defects defective anomaly anomalies faulty failed rejected"
_ABNORMAL, _SAID_ALONG = frozenset(_ALONE.split()), frozenset(_WITH_OTHERS.split())
_NOT = frozenset({"no", "non", "not", "without"})

_SYSTEM = frozenset(
    {
        "@eadir", "@tmp", "@recycle", "@recently-snapshot", "@sharebin", "@sharesnap",  # Synology, QNAP
        "#recycle", "#snapshot", "~snapshot", "lost+found",
        "$recycle.bin", "recycler", "recycled", "system volume information", "$extend", "msocache", "config.msi",
        "__macosx", "network trash folder", "temporary items", "thevolumesettingsfolder",
        "thumbs.db", "ehthumbs.db", "desktop.ini",
    }
)  # fmt: skip

_MASK_NAMES = "mask masks groundtruth groundtruths gt gts annotation annotations segmentation segmentations"
_MASKS = frozenset(_MASK_NAMES.split())
_BOARD_MASKS = frozenset({"solder", "paste", "resist", "stencil", "soldering"})  # of a board's making
_IMAGES = frozenset({"image", "images", "img", "imgs"})
_BESIDE = re.compile(r"(.+?)[_\-. ]+(?:gt|ground[_\-. ]?truth|labels?|seg|segmentation|annotation)", re.IGNORECASE)

_SPLIT_WORDS = {
    TRAIN: "train training trn",
    VAL: "val valid validation validate vld",
    TEST: "test testing tst",
}
_SPLIT_OF = {word: split for split, words in _SPLIT_WORDS.items() for word in words.split()}
_SET = "(?:data|dataset|set|split|images?|imgs?)"
_SPLIT = re.compile(
    rf"(?:\d+[\W_]*)?(?:{_SET}[\W_]+)?({'|'.join(sorted(_SPLIT_OF, key=len)[::-1])})(?:[\W_]*(?:{_SET}|public))?"
)


def is_system(name: str) -> bool:
    """Whether a system made a file or folder for itself: thumbnails, waste bins, indexes; what is hidden, too."""
    lower = name.lower()
    return lower.startswith(".") or lower in _SYSTEM or re.fullmatch(r"found\.\d{3}", lower) is not None


def holds_masks(folder: str, beside: Collection[str] = ()) -> bool:
    """Whether a folder of this name holds masks of defects, not photographs.

    Args:
        folder: its name.
        beside: names of the files and folders beside it, in lower case.
    """
    words = _words(folder)
    if "".join(words) in _MASKS:
        return True
    if folder.lower() in ("label", "labels"):
        return not _IMAGES.isdisjoint(beside)
    return len(words) > 1 and words[-1] in ("mask", "masks") and _BOARD_MASKS.isdisjoint(words)


def is_mask(stem: str, beside: Collection[str]) -> bool:
    """Whether a picture is a mask by its name without suffix: ``1_mask``, or ``1_gt`` and ``1_label`` where 1 is there.

    Args:
        stem: its name without suffix.
        beside: names without suffix of the pictures in its folder and the one above, in lower case.
    """
    words = _words(stem)
    if len(words) > 1 and words[-1] in ("mask", "masks"):
        return _BOARD_MASKS.isdisjoint(words)
    match = _BESIDE.fullmatch(stem)
    return match is not None and match[1].lower() in beside


def split_of(name: str) -> str | None:
    """The split that a folder or a manifest's cell names: train, Training, train_set, trn; else None."""
    match = _SPLIT.fullmatch(name.lower())
    return _SPLIT_OF[match[1]] if match else None


def class_of(folders: Sequence[str], normal: Collection[str] = NORMAL_NAMES) -> str:
    """The class of an image in nested folders, the outermost first.

    The deepest folder that tells good from bad decides: OK/NG is bad, normal/board7 is normal. The defect type is the
    name of the folder that holds the image.

    Args:
        folders: their names, one at least.
        normal: names of the normal class, in lower case.
    """
    for name in reversed(folders):
        if name.lower() in normal:
            return NORMAL
        if _tells_bad(name):
            break
    return folders[-1]


def _tells_bad(name: str) -> bool:
    words = _words(name)
    if words[:1] and words[0] in _NOT:
        return "".join(words[1:]) in ("ok", "good", "normal")
    return "".join(words) in _ABNORMAL or not _SAID_ALONG.isdisjoint(words)


def _words(name: str) -> list[str]:
    return re.findall(r"[^\W_]+", name.lower())
