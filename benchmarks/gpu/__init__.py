"""The parts of ``benchmarks/gpu.sh``."""
