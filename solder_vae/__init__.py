"""Anomaly detection for solder joints with CAE, VAE and beta-VAE.

Importing the package is cheap on purpose: torch and Lightning are imported by the modules that need them,
so that ``python -m solder_vae.train --help`` answers at once.
"""

__version__ = "0.1.0"
