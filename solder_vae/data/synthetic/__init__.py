"""The embedded data set: solder joints rendered on demand, good ones and nine defects (docs/research/synthetic.md)."""

from solder_vae.data.synthetic.defects import DEFECTS
from solder_vae.data.synthetic.render import Rendered, render
from solder_vae.data.synthetic.source import SyntheticSource

__all__ = ["DEFECTS", "Rendered", "SyntheticSource", "render"]
