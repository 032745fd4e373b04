"""Covariance backends: each turns a design into cross-products with `gram` and `project`.

A backend is a folder: `prepare` goes from rows to products, `products` from these to the Gram and its
derivatives.
"""

from lmmjax.gram.base import (
    Cost,
    CrossProducts,
    Curve,
    FullCurve,
    Gram,
    GramCurve,
    GramJet,
    Prepared,
    Projection,
    ResponseProducts,
)
from lmmjax.gram.choose import BACKENDS, choose, prepare
from lmmjax.gram.factors import Factor, grouping_factors, nested_chain

__all__ = [
    "BACKENDS",
    "Cost",
    "CrossProducts",
    "Curve",
    "Factor",
    "FullCurve",
    "Gram",
    "GramCurve",
    "GramJet",
    "Prepared",
    "Projection",
    "ResponseProducts",
    "choose",
    "grouping_factors",
    "nested_chain",
    "prepare",
]
