"""Anomaly detection for solder joints with CAE, VAE and beta-VAE.

Importing the package is cheap on purpose: torch and Lightning are imported by the modules that need them,
so that ``python -m solder_vae.train --help`` answers at once.
"""

import os
from typing import Any

# Read by the libraries when they are first imported, so set before any module of the package can import them:
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # albumentations asks the network for its newest version
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(1 << 26))  # OpenCV refuses larger images by their header
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reports clusters that it starts to its makers

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """``from solder_vae import Inspector``, without making every import of the package wait for torch."""
    if name == "Inspector":
        from solder_vae.inspection.inspector import Inspector

        return Inspector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
