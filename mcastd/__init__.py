"""mcastd: a multicast router for Linux that a program can drive.

The packages and who may import whom are in ARCHITECTURE.md; tests/meta/test_layers.py enforces it.
"""

__version__ = "0.1.0"
