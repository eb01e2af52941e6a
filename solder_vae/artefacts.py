"""The files of a run: metrics.json, predictions.csv and the pictures, each written whole or not at all."""

from __future__ import annotations

import csv
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch

from solder_vae import plots
from solder_vae.data.transforms import to_tensor
from solder_vae.evaluation import Evaluation
from solder_vae.models import CAE


@contextmanager
def whole_file(path: Path) -> Iterator[TextIO]:
    """A text file that appears under its name only once it is complete."""
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", newline="", dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as file:
        try:
            yield file
        except BaseException:
            Path(file.name).unlink()
            raise
    os.chmod(file.name, 0o644)
    Path(file.name).replace(path)
