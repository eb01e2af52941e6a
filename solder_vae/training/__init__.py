"""One run, from its config to its folder.

It may import ``evaluation``, ``data``, ``models``, ``metrics`` and ``utils``. It does not know ``inspection``: what
they share is a checkpoint.
"""
