"""Small inputs that failed once, with the right result beside; they lie beside the checkout, not in it."""

import os
from pathlib import Path

import pytest

CASES = Path(os.environ.get("SOLDER_VAE_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data")).parent / "cases"
needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason=f"no cases in {CASES}")
