"""A trained model held against images: scores, baselines, anomaly maps, tables and pictures.

It may import ``data``, ``models``, ``metrics`` and ``utils``.
"""
