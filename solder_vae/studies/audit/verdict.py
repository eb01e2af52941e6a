"""What an audit's findings mean for a training run, in plain words, the worst first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import mean
from typing import NamedTuple

from solder_vae.data.controlled import RESOLUTION
from solder_vae.data.framing import SQUARE, cut_off
from solder_vae.data.splits import TEST
from solder_vae.data.transforms import CONTROLLED, PLAIN
from solder_vae.evaluation.baselines import AUROC, LOW, TrivialAuroc, shortcuts, visible
from solder_vae.studies.audit.examine import Audit, Group
from solder_vae.utils.labels import NORMAL

STOP, LOOK, FINE = LEVELS = ("stop", "look", "fine")

HEADLINES = {
    STOP: "Stop: a result on these images would not mean what it seems to",
    LOOK: "Usable, but look at these points first",
    FINE: "Nothing suspicious was found",
}

FEW_NORMALS = 50
"""Of fewer test normals, the standard error of a false-call rate of 5 % is above 3 %."""

FEW_DEFECTS = 10
"""Of fewer images, a defect type's recall has an interval of half the scale."""


class Finding(NamedTuple):
    """One finding: how bad ("stop", "look" or "fine"), a sentence, and what it means."""

    level: str
    title: str
    text: str


def verdict(audit: Audit) -> list[Finding]:
    """All findings, the worst first."""
    found = [*_shortcut(audit), *_unusable(audit), *_duplicates(audit), *_numbers(audit)]
    found += [*_formats(audit), *_elongated(audit)]
    return sorted(found, key=lambda finding: LEVELS.index(finding.level))


def worst(findings: Sequence[Finding]) -> str:
    return min((finding.level for finding in findings), key=LEVELS.index, default=FINE)


def measured_on(audit: Audit) -> str:
    """How the trivial baselines were measured, in words."""
    normals, abnormals = audit.not_fitted
    return (
        "Each trivial feature's distance from the training normals (Mahalanobis), fitted to the normals that a "
        f"run with this seed would train on, measured on all {abnormals} abnormals against the {normals} normals "
        "that it was not fitted to. 0.5 is guessing, 1 is perfect; in brackets the 95 % bootstrap interval."
    )


def _shortcut(audit: Audit) -> Iterator[Finding]:
    if not audit.plain:
        if all(item.defect == NORMAL for item in audit.items):
            yield Finding(LOOK, "Whether there is a shortcut cannot be tested", "There are no defective images.")
        return
    found = shortcuts(audit.plain, PLAIN)
    if found:
        yield Finding(
            STOP,
            f"Defects are told from good joints without looking at solder: {found[0].baseline} alone reaches an AUROC "
            f"of {found[0].auroc:.3f}",
            f"Trivial features at {AUROC} or more: {_listed(found)}. A network may learn the same, and its score would "
            "prove nothing. Either normals and defects were photographed in different ways (camera, light, crop), or "
            "the defects themselves are that plain to see: the numbers cannot tell which, the pictures below can.",
        )
        yield _controlled(audit)
        return
    strongest = audit.plain[0]
    if strongest.high >= AUROC:
        text = f"{strongest} is below the limits ({AUROC}, interval from {LOW}), but its interval is wide: more images."
        yield Finding(LOOK, "No shortcut was found, but these images are too few to rule one out", text)
    else:
        yield Finding(FINE, "No shortcut was found", f"The strongest trivial feature: {strongest}.")


def _controlled(audit: Audit) -> Finding:
    """Whether the controlled view removes the shortcut."""
    left = shortcuts(audit.controlled, CONTROLLED)
    rest = [result for result in audit.controlled if visible(result.baseline, CONTROLLED)]
    small = _small_images(audit)
    if left:
        return Finding(
            STOP,
            f"The controlled view does not remove it: there {left[0].baseline} alone still reaches {left[0].auroc:.3f}",
            f"In grey, at equal resolution and contrast: {_listed(rest)}.{small} Photograph good and bad joints in the "
            "same way.",
        )
    return Finding(
        LOOK,
        "The controlled view removes it: train with data.view=controlled, too, and see what of the result survives",
        f"In grey, at equal resolution and contrast: {_listed(rest)}. (Image size is not in the picture there.){small}",
    )


def _small_images(audit: Audit) -> str:
    """Where size may still show: images of fewer pixels than all are reduced to stay blurrier than the others."""
    normals, abnormals = (
        [100.0 * (min(item.native_size) < RESOLUTION) for item in audit.items if (item.defect == NORMAL) == normal]
        for normal in (True, False)
    )
    if max(mean(normals), mean(abnormals)) < 1:
        return ""
    return (
        f" But {mean(normals):.0f} % of the normals and {mean(abnormals):.0f} % of the defects have a side under "
        f"{RESOLUTION} px and stay blurrier than the others, so that some of their size still shows."
    )


def _unusable(audit: Audit) -> Iterator[Finding]:
    total = len(audit.items) + len(audit.unreadable)
    if audit.no_split is not None:
        yield Finding(STOP, "A training run would refuse these images", audit.no_split)
    if audit.unreadable:
        title = f"{len(audit.unreadable)} of {total} images cannot be read"
        yield Finding(STOP, title, "A training run refuses them: repair or remove them, or use data.on_bad_file=skip.")
    if audit.odd:
        title = f"{len(audit.odd)} of {total} images are odd"
        yield Finding(LOOK, title, "They would be used as they are; they are shown below.")


def _duplicates(audit: Audit) -> Iterator[Finding]:
    across = [group for group in audit.copies if len(group.classes) > 1]
    if across:
        yield Finding(
            STOP,
            f"{_images(across)} with equal pixels are in more than one class",
            "One of the labels is wrong. A training run keeps them all for the test.",
        )
    torn = [group for group in audit.copies if len(group.splits) > 1]
    if torn:
        yield Finding(
            LOOK,
            f"{_images(torn)} with equal pixels are in more than one of the given splits",
            "A training run leaves out those that validation or test have, too.",
        )
    within = [group for group in audit.copies if len(group.classes) == 1 and len(group.splits) <= 1]
    if within:
        extra = sum(len(group.rows) - 1 for group in within)
        yield Finding(
            LOOK,
            f"{extra} images are copies, pixel by pixel, of another of their class ({_images(within)} in "
            f"{len(within)} groups)",
            "They are kept in one split, but count several times there: the intervals come out too narrow.",
        )
    near_across = [group for group in audit.near if len(group.classes) > 1]
    near_torn = [group for group in audit.near if len(group.splits) > 1]
    if near_across:
        yield Finding(
            LOOK,
            f"{_images(near_across)} are near duplicates across classes",
            "Check their labels; they are shown below.",
        )
    if near_torn:
        yield Finding(
            LOOK,
            f"{_images(near_torn)} are near duplicates in different splits",
            "Part of the test images were then trained on. Give such images one group (data.group_regex, or the "
            "column group of a manifest).",
        )
    if audit.items and not audit.copies and not audit.near:
        yield Finding(FINE, "No duplicates were found", "Neither equal pixels nor near duplicates.")


def _numbers(audit: Audit) -> Iterator[Finding]:
    counts = Counter(item.defect for item in audit.items if item.defect != NORMAL)
    few = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()) if count < FEW_DEFECTS)
    if few:
        title = f"Some defect types have fewer than {FEW_DEFECTS} images"
        yield Finding(LOOK, title, f"{few}: how well these are found cannot be known.")
    normals = sum(item.used and item.split == TEST and item.defect == NORMAL for item in audit.items)
    if audit.no_split is None and normals < FEW_NORMALS:
        yield Finding(
            LOOK,
            f"Only {normals} normal images are for the test",
            "False-call rates and AUROCs will have wide intervals; data.fractions gives the test more.",
        )


def _formats(audit: Audit) -> Iterator[Finding]:
    """Formats do not reach the network, but show that images were made or stored differently."""
    normals, others = (
        [item.format for item in audit.items if (item.defect == NORMAL) == normal] for normal in (True, False)
    )
    if not any(normals) or not others:  # rendered images have no format
        return
    ((usual, count),) = Counter(normals).most_common(1)
    if count / len(normals) - others.count(usual) / len(others) > 0.5:
        yield Finding(
            LOOK,
            "Normals and defects are stored in different file formats",
            f"{count} of {len(normals)} normals are {usual}, but {others.count(usual)} of {len(others)} defects: they "
            "were made or stored differently, which may have left traces in the pixels.",
        )


def _elongated(audit: Audit) -> Iterator[Finding]:
    """What the central square leaves out."""
    sentence = cut_off([item.native_size for item in audit.items]) if audit.crop == SQUARE else ""
    if sentence:
        what, _, advice = sentence.partition(": ")
        yield Finding(LOOK, what, f"Solder at the two ends of a long box is not seen; {advice}")


def _listed(results: Sequence[TrivialAuroc]) -> str:
    return ", ".join(map(str, results))


def _images(groups: Sequence[Group]) -> str:
    return f"{sum(len(group.rows) for group in groups)} images"
