"""Networks, objectives and scores. This room does not read images from files.

It may import ``utils``. Configs name models here (``_target_: solder_vae.models.BetaVAE``). A class is imported when it
is asked for, since ``--help`` must not wait for torch.
"""

from importlib import import_module
from typing import Any

_MODULES = {
    "CAE": "autoencoder",
    "VAE": "vae",
    "BetaVAE": "vae",
    "BetaTCVAE": "beta_tcvae",
    "AnnealedVAE": "annealed_vae",
    "Backbone": "backbone",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"solder_vae.models.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
