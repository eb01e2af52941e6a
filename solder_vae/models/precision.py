"""Precisions of training, and what ``trainer.precision=auto`` chooses: bfloat16 where it is faster, else single.

On CPUs the tile unit (AMX) or the bfloat16 dot product of AVX-512 makes it fast; where it is emulated it is slower.
``make bench`` measures both (docs/research/performance.md). The choice follows from the processor alone:
if the speed were measured at the start of each run, two runs of one seed could choose differently, and their results
would differ.
Scores are always computed in single precision: test and predict with ``32-true``.
"""

from __future__ import annotations

from typing import Any

from solder_vae.utils.errors import UserError

FULL, MIXED, DOUBLE = "32-true", "bf16-mixed", "64-true"


def check_precision(precision: Any) -> None:
    """Refuse precisions that would spoil GradCon's reference gradients.

    float16 needs a scaled loss. Its gradients are scaled, too, and sometimes infinite, which the running mean would
    keep. With bfloat16 throughout, the mean itself would have only three digits.

    Raises:
        UserError: the precision is not supported.
    """
    if precision not in ("auto", FULL, MIXED, DOUBLE):
        raise UserError(
            f"trainer.precision={precision} is not supported: use auto, {FULL}, {MIXED} or {DOUBLE} "
            "(float16 scales the loss, which would spoil GradCon's reference gradients)."
        )


def resolve_precision(precision: Any, accelerator: str = "cpu") -> Any:
    """What to give to ``Trainer(precision=...)`` for training.

    Args:
        precision: the config's value; everything but "auto" is returned as it is.
        accelerator: Lightning's name of the device that trains. On a GPU "auto" is 32-true.
    """
    if precision != "auto":
        return precision
    return MIXED if is_cpu(accelerator) and computes_in_bfloat16() else FULL


def is_cpu(accelerator: str) -> bool:
    """Whether Lightning's name of an accelerator leads to a CPU on this machine."""
    import torch  # here, so that an unknown name is told without it

    other = torch.cuda.is_available() or torch.backends.mps.is_available()
    return accelerator == "cpu" or (accelerator == "auto" and not other)


def computes_in_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself: AMX (Intel since 2023), AVX512_BF16 (AMD since Zen 4)."""
    import torch

    has_unit = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    # oneDNN, whose kernels use it, may be kept from it: ONEDNN_MAX_CPU_ISA.
    may_use_it = torch._C._has_mkldnn and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return bool(has_unit and may_use_it)
