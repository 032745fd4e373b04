"""What other packages call the things of a fit: an attribute that is missing says where they are here."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

HERE = {
    # lme4, lmerTest, nlme, emmeans
    "AIC": "aic",
    "BIC": "bic",
    "VarCorr": "varcorr()",
    "bootMer": "bootstrap(key)",
    "confint": "conf_int()",
    "fixef": "params",
    "coefficients": "coef_table()",
    "isSingular": "is_singular",
    "logLik": "llf",
    "lsmeans": "emmeans()",
    "predictInterval": 'predict(new, interval="prediction")',
    "qqnorm": "plot.residuals()",
    "rePCA": "repca()",
    "vcov": "cov_params()",
    # limma, dream
    "decideTests": "top(): its column q",
    "eBayes": "moderate(), or top(moderated=True)",
    "ebayes": "moderate(), or top(moderated=True)",
    "topTable": "top(), or top(moderated=True)",
    "toptable": "top(), or top(moderated=True)",
    "plotMD": "plot.ma()",
    "volcano": "plot.volcano()",
    "volcanoplot": "plot.volcano()",
}
"""Names of other packages, with what has the same numbers."""


FEW = 25
"""Attributes that are listed."""


class OtherNames:
    """Of fits: what is not there is named with what is."""

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            kind = type(self).__name__
            if name.startswith("_"):
                raise AttributeError(f"{kind!r} object has no attribute {name!r}")
            if hasattr(type(self), name):
                return type(self).__getattribute__(self, name)  # raises what it raised
            here = HERE.get(name)
            if here is None or not hasattr(type(self), here.split("(")[0].split(".")[0]):
                own = [n for n in dir(type(self)) if not n.startswith("_")]
                close = difflib.get_close_matches(name, own, n=1)
                here = close[0] if close else None
                said = f": there are {', '.join(own)}" if len(own) <= FEW else ""
                said = f": did you mean {here!r}?" if close else said
            else:
                said = f": it is {here} here"
            raise AttributeError(f"{kind!r} object has no attribute {name!r}{said}")
