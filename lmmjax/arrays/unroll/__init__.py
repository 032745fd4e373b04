"""A function of small arrays as arithmetic on their elements: an interpreter, and the rules of primitives."""

from lmmjax.arrays.unroll.interpreter import Elements, unroll

__all__ = ["Elements", "unroll"]
