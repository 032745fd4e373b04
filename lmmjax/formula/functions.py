"""formulaic, and what expressions may name besides columns: the only module that imports it, and not before a
formula is read (the import takes 0.3 to 1 second).

Beyond formulaic's own functions an expression may use sqrt, sin, cos, tan, log1p, expm1, pi, `ns` (the
basis of R's), `factor` (formulaic's C), TRUE and FALSE; `np` is NumPy.
"""

import builtins
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from lmmjax.design.splines import natural_basis, natural_knots
from lmmjax.formula.levels import whole_labels
from lmmjax.formula.text.arithmetic import DOUBLE, double, evaluable


@lru_cache(maxsize=1)
def formulaic() -> SimpleNamespace:
    """formulaic, and what expressions may name besides columns: `names`, among them `functions`, and
    `known`, Python's own included."""
    from formulaic import Formula
    from formulaic.materializers import PandasMaterializer
    from formulaic.materializers.types import FactorValues
    from formulaic.transforms import TRANSFORMS
    from formulaic.utils.layered_mapping import LayeredMapping
    from formulaic.utils.null_handling import find_nulls
    from formulaic.utils.stateful_transforms import stateful_transform
    from interface_meta import override

    class Materializer(PandasMaterializer):
        @override
        def _evaluate(self, expr: str, metadata: Any, spec: Any) -> Any:
            text, hidden = evaluable(str(expr))
            outer = self.layered_context
            values = {stand_in: outer[name] for stand_in, name in hidden.items() if name in outer}
            self.layered_context = LayeredMapping({DOUBLE: double, **values}, outer)
            try:
                return super()._evaluate(text, metadata, spec)
            finally:
                self.layered_context = outer

        @override
        def _is_categorical(self, values: Any) -> bool:
            dtype = getattr(getattr(values, "__wrapped__", values), "dtype", None)
            return getattr(dtype, "kind", None) == "b" or super()._is_categorical(values)

    @stateful_transform
    def ns(x: Any, df: int | None = None, knots: Any = None, _state: dict | None = None) -> Any:
        values = np.asarray(x, dtype=np.float64)
        state = {} if _state is None else _state
        if not state:
            state.update(natural_knots(values, df, knots))
        basis = natural_basis(values, **state)
        return FactorValues(basis, column_names=tuple(str(k + 1) for k in range(basis.shape[1])))

    def factor(data: Any, contrasts: Any = None, **options: Any) -> Any:
        return TRANSFORMS["C"](whole_labels(getattr(data, "__wrapped__", data)), contrasts, **options)

    from_numpy = ("sqrt", "sin", "cos", "tan", "log1p", "expm1", "pi")

    def exp10(x: Any) -> Any:
        # formulaic's is x**10
        return np.power(10.0, x)

    context = {"np": np, "TRUE": True, "FALSE": False, "ns": ns, "C": factor, "factor": factor}
    context |= {"exp10": exp10}
    context |= {name: getattr(np, name) for name in from_numpy}
    names = TRANSFORMS | context
    functions = {name for name, value in names.items() if callable(value)}
    return SimpleNamespace(
        Formula=Formula,
        Materializer=Materializer,
        find_nulls=find_nulls,
        context=context,
        names=names,
        functions=frozenset(functions),
        known=frozenset(names) | frozenset(dir(builtins)),
    )
