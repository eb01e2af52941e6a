"""What ``conf/data/synthetic.yaml`` names: the embedded set as batches."""

from solder_vae.data.configured import data_of
from solder_vae.data.synthetic.source import SyntheticSource

synthetic_data = data_of(SyntheticSource)
