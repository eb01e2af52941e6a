"""Questions about whole data sets, sweeps and the paper; each ends in one page.

It may import ``training``, ``evaluation``, ``data``, ``models``, ``metrics`` and ``utils``.
"""
