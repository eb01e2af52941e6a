"""A checkpoint and new joints: verdicts, reports, thresholds set anew, boards, ONNX graphs.

It may import ``evaluation``, ``data``, ``models``, ``metrics`` and ``utils``.
"""
