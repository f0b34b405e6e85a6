"Benchmark video diffusion models: quality with uncertainty, cost and streaming, in notebooks."
__version__ = "0.1.0"
