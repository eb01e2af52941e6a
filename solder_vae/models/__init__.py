"""Networks, objectives and scores: what a model is. It knows no file of images; it may import ``utils`` alone.

Configs name models here (``_target_: solder_vae.models.BetaVAE``); a class is imported when it is asked for, since
``--help`` must not wait for torch.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    if name in ("CAE", "VAE", "BetaVAE"):
        from solder_vae.models import autoencoder

        return getattr(autoencoder, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
