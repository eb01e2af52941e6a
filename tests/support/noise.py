"""A source of random images."""

import numpy as np

from solder_vae.data.table import ImageTable
from solder_vae.utils.labels import NORMAL


def table(count, size=8, abnormal=0, seed=0):
    images = np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    defects = [NORMAL] * (count - abnormal) + ["short"] * abnormal
    return ImageTable(images, [str(i) for i in range(count)], defects, np.full((count, 2), size))


class Noise:
    """A source of random images."""

    def __init__(self, train=50, size=8):
        self.made = 0
        self.counts = {"train": (train, 0), "val": (13, 0), "test": (11, 4)}
        self.size = size

    def tables(self):
        self.made += 1
        return {
            split: table(count, self.size, abnormal, seed)
            for seed, (split, (count, abnormal)) in enumerate(self.counts.items())
        }
