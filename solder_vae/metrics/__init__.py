"""Arrays in, numbers out: thresholds, classification, localisation, statistics. No model, no image file.

It may import ``utils``.
"""
