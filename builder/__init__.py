"""The engine: from a Dockerfile to images and containers' trees."""

__version__ = "0.1.0"
