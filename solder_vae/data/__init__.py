"""Images in, batches out: readers, splits, transforms, the LightningDataModule and the embedded data set.

It may import ``utils``.
"""
