"""Thor: the engine room of a futures trader."""

__version__ = "0.1.0"
