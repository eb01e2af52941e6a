"""What the paper reports (Ulger, Yuksel and Yilmaz, arXiv:2104.11927): Tables II and III, as data.

Means over 50 runs with what stands behind the ± sign, as printed; None where nothing is printed.
"""

from __future__ import annotations

from typing import NamedTuple

RUNS = 50

ABNORMAL, NORMAL = 66, 84  # test images (IV-A)

BETA = 3  # of "beta-VAE" (Table I)


class Value(NamedTuple):
    """A printed number."""

    mean: float
    spread: float | None = None

    def __str__(self) -> str:
        return f"{self.mean:.3f}" if self.spread is None else f"{self.mean:.3f} ± {self.spread:.2f}"


class Cell(NamedTuple):
    """A column of a table: one model under one score."""

    precision: Value
    recall: Value
    f1: Value


#: Table II by model and score.
TABLE_2 = {
    ("cae", "recon"): Cell(Value(0.728, 0.01), Value(0.573, 0.01), Value(0.641)),
    ("cae", "gradcon"): Cell(Value(0.708), Value(0.780, 0.02), Value(0.742, 0.01)),
    ("vae", "recon"): Cell(Value(0.779, 0.05), Value(0.802, 0.03), Value(0.789, 0.03)),
    ("vae", "elbo"): Cell(Value(0.805, 0.03), Value(0.773, 0.04), Value(0.787, 0.03)),
    ("vae", "gradcon"): Cell(Value(0.760, 0.03), Value(0.836, 0.04), Value(0.796, 0.03)),
    ("beta_vae", "recon"): Cell(Value(0.783, 0.04), Value(0.827, 0.03), Value(0.803, 0.03)),
    ("beta_vae", "elbo"): Cell(Value(0.825, 0.03), Value(0.777, 0.04), Value(0.799, 0.03)),
    ("beta_vae", "gradcon"): Cell(Value(0.804, 0.04), Value(0.816, 0.05), Value(0.809, 0.04)),
}

#: Table III by beta: trained with the gradient constraint, scored by GradCon.
TABLE_3 = {
    0.01: Cell(Value(0.704, 0.01), Value(0.786, 0.03), Value(0.743, 0.02)),
    0.1: Cell(Value(0.734, 0.01), Value(0.824, 0.02), Value(0.776, 0.01)),
    1.0: Cell(Value(0.760, 0.03), Value(0.836, 0.04), Value(0.796, 0.03)),
    3.0: Cell(Value(0.804, 0.04), Value(0.816, 0.05), Value(0.809, 0.04)),
    10.0: Cell(Value(0.720, 0.05), Value(0.754, 0.05), Value(0.735, 0.04)),
}
