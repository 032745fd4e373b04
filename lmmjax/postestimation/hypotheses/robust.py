"""Robust covariances of the fixed effects of a fit: which clusters, and what tests need of them."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np

from lmmjax.arrays.caller import stack_level
from lmmjax.design import EstimabilityWarning
from lmmjax.fitted import Fitted, ModelData, kept, require_rows
from lmmjax.fitted.responses import on_rows
from lmmjax.formula.clusters import cluster_labels, named_clusters
from lmmjax.inference.robust.clusters import Clustered, alone, clustered
from lmmjax.inference.robust.sandwich import KINDS, Clusters, correction, joint_test, sandwich, single_tests
from lmmjax.postestimation.hypotheses.contrasts import written

DDF = ("satterthwaite", "normal")
"""Degrees of freedom that go with a robust covariance."""

ROWS = "all rows"
"""Name of the one group of correlated residuals without groups."""

KEPT = 1 << 22
"""Numbers of clusters that are kept for further tests with the same covariance."""


@dataclasses.dataclass(frozen=True, eq=False)
class Robust:
    """A robust covariance that was asked for.

    Attributes
    ----------
    kind : of `KINDS`; cluster : name of the factor.
    codes : (n,) cluster of each row of the model, 0 … G − 1.
    cache : values of functions that are `kept` with it.
    """

    kind: str
    cluster: str
    codes: np.ndarray
    cache: dict[Any, Any] = dataclasses.field(default_factory=dict, repr=False)

    @property
    def n_clusters(self) -> int:
        return int(self.codes.max()) + 1

    def on_rows(self, rows: np.ndarray) -> Robust:
        """The same for the model on some of its rows, (n,) bool."""
        return Robust(self.kind, self.cluster, np.unique(self.codes[rows], return_inverse=True)[1])

    def note(self, ddf: str) -> str:
        """What a table that uses it says of it."""
        of = "Satterthwaite's for it (Bell-McCaffrey)" if ddf == "satterthwaite" else "infinite"
        return (
            f"standard errors: {self.kind}, robust, {self.n_clusters} clusters of {self.cluster}; "
            f"degrees of freedom: {of}"
        )


def robust_choice(data: ModelData, robust: str | None, cluster: Any, ddf: str = "normal") -> Robust | None:
    """The covariance that `robust` and `cluster` ask for; None for the model's.

    Parameters
    ----------
    robust : "CR0", "CR1", "CR2", "CR3" or None.
    cluster : name of a factor of the model or column of its data, or a label for each row; None for the
        coarsest factor, if all others are nested in it.
    ddf : a value of `fixed_tests.METHODS`.

    Raises
    ------
    ValueError : rows of a group of random effects or of correlated residuals would lie in several clusters;
        there is no factor that could be the cluster, or one cluster only.
    """
    if robust is None:
        if cluster is not None:
            raise ValueError(f"cluster= is for robust=, which is missing: choose one of {', '.join(KINDS)}")
        return None
    require_rows(data, f"robust={robust!r:.20}")
    kind = robust.upper() if isinstance(robust, str) else robust
    if kind not in KINDS:
        raise ValueError(
            f"unknown robust {robust!r}; choose one of: {', '.join(KINDS)}. EMPIRICAL of PROC MIXED, mmrm's "
            '"Empirical", is CR0, "Empirical-Jackknife" CR3, "Empirical-Bias-Reduced" CR2'
        )
    if ddf not in DDF:
        raise ValueError(
            f"ddf={ddf!r} adjusts the model's covariance: with robust={kind!r} take ddf='satterthwaite' "
            "(Bell and McCaffrey's) or 'normal'"
        )
    factors = _dependent(data)
    if cluster is None:
        name, codes = _coarsest(factors)
    elif isinstance(cluster, str):
        name, codes = cluster, _complete(data, named_clusters(data.frame, cluster))
    else:
        name, codes = str(getattr(cluster, "name", None) or "cluster"), _given(data, cluster)
    if ROWS in factors:
        raise ValueError(
            "the residuals of all rows are correlated, so that no clusters are independent: give the "
            "residual structure its group=, or take the model's covariance"
        )
    _require_whole(name, codes, factors)
    if codes.max() < 1:
        raise ValueError(f"all rows lie in one cluster of {name!r}: a robust covariance needs several")
    return Robust(kind, name, codes)


def _dependent(data: ModelData) -> dict[str, tuple[np.ndarray, str]]:
    """Codes (n,) of the factors within whose groups rows depend on each other, and what they are."""
    out = {}
    for term, own in zip(data.frame.random, data.design.terms, strict=True):
        related = "" if own.kernel is None else ", whose levels are related"
        out.setdefault(term.group, (np.asarray(own.blocks), f"the random factor {term.group!r}{related}"))
    columns = data.frame.residual
    if columns is not None and columns.design is not None and columns.residual.correlation is not None:
        name = ROWS if columns.groups is None else ":".join(columns.groups.names)
        out.setdefault(name, (columns.design.codes, f"the group {name!r} of correlated residuals"))
    return out


def _coarsest(factors: dict[str, tuple[np.ndarray, str]]) -> tuple[str, np.ndarray]:
    for name, (codes, _) in factors.items():
        if all(holds(codes, other) for other, _ in factors.values()):
            return name, np.unique(codes, return_inverse=True)[1]
    if not factors:
        raise ValueError("the model has no groups: say which rows belong together by cluster=")
    raise ValueError(
        f"say by cluster= which rows are independent of others: of {', '.join(factors)} none holds the "
        "others "
        "whole, which clusters must; pass a factor that does, such as the site, or use ddf='kenward-roger' "
        "without robust="
    )


def _given(data: ModelData, cluster: Any) -> np.ndarray:
    labels, n = cluster_labels(cluster), len(data.frame.data_index)
    if len(labels.values) not in (n, data.design.n):
        given = len(labels.values)
        raise ValueError(f"cluster has {given} labels: give one for each of the {n} rows of the data")
    return _complete(data, on_rows(data.frame, labels, "cluster"))


def _complete(data: ModelData, codes: np.ndarray) -> np.ndarray:
    """Codes (n,) 0 … G − 1; ValueError where one is missing."""
    if np.isnan(codes).any():
        row = data.frame.index[int(np.argmax(np.isnan(codes)))]
        raise ValueError(f"cluster is missing in row {row}: give every row of the model a cluster")
    return np.unique(codes, return_inverse=True)[1]


def _require_whole(name: str, codes: np.ndarray, factors: dict[str, tuple[np.ndarray, str]]) -> None:
    for fine, what in factors.values():
        if holds(codes, fine):
            continue
        whole = [n for n, (c, _) in factors.items() if all(holds(c, f) for f, _ in factors.values())]
        remedy = f", such as cluster={whole[0]!r}" if whole else ""
        if name in whole:
            remedy = ": leave cluster= out for the families of related levels"
        raise ValueError(
            f"clusters of {name!r} cut {what}: rows of one of its groups lie in several clusters, which are "
            "not "
            f"independent then; take clusters that hold its groups whole{remedy}"
        )


def holds(coarse: np.ndarray, fine: np.ndarray) -> bool:
    """Whether every group of `fine` (n,) lies within one of `coarse` (n,)."""
    owner = np.zeros(int(fine.max()) + 1, coarse.dtype)
    owner[fine] = coarse
    return bool(np.array_equal(owner[fine], coarse))


@kept
def _clustered(robust: Robust, fitted: Fitted) -> Clustered:
    estimate = fitted.estimate
    return clustered(fitted.data.design, estimate.psi, estimate.beta, fitted.y, robust.codes)


def lost_to_clusters(data: ModelData, robust: Robust, rows: np.ndarray) -> np.ndarray:
    """Which contrasts, rows (k, p), one cluster determines in part; an `EstimabilityWarning` names them."""
    lost = alone(data.design, robust.codes, rows)
    if lost.any():
        named = "; ".join(written(row.round(8), data.x_names) for row in rows[lost][:6])
        warnings.warn(
            f"no robust standard error: {named}{'; ...' if lost.sum() > 6 else ''}. One cluster of "
            f"{robust.cluster!r} is all that the data have on it, so that clusters do not tell how precise "
            "it is",
            EstimabilityWarning,
            stacklevel=stack_level(),
        )
    return lost


@kept
def _pieces(robust: Robust, fitted: Fitted) -> list[Clusters] | None:
    """The clusters, if they are few enough to be kept."""
    made, out, held = _clustered(robust, fitted), [], 0
    for piece in made.pieces(robust.kind):
        held += piece.size
        if held > KEPT:
            return None
        out.append(piece)
    return out


def _each(robust: Robust, fitted: Fitted) -> Iterable[Clusters]:
    pieces = _pieces(robust, fitted)
    return _clustered(robust, fitted).pieces(robust.kind) if pieces is None else pieces


def robust_covariance(fitted: Fitted, robust: Robust) -> np.ndarray:
    """V_R (p, p) of β̂."""
    factor = _clustered(robust, fitted).factor
    total = sandwich(_each(robust, fitted), fitted.data.design.p)
    return correction(robust.kind, robust.n_clusters) * factor @ total @ factor.T


def robust_df(fitted: Fitted, robust: Robust, rows: np.ndarray) -> np.ndarray:
    """Satterthwaite's degrees of freedom (k,) of single contrasts, the rows (k, p) of L."""
    return single_tests(_each(robust, fitted), _clustered(robust, fitted).factor.T @ rows.T)[1]


def robust_joint(fitted: Fitted, robust: Robust, rows: np.ndarray) -> tuple[np.ndarray, float]:
    """LV_RLᵀ (k, k) of contrasts tested together, rows (k, p) of L, and η of Hotelling's T² for them."""
    made = _clustered(robust, fitted)
    inner = made.factor.T @ rows.T
    total, eta = joint_test(_each(robust, fitted), inner)
    return correction(robust.kind, made.n_clusters) * inner.T @ total @ inner, eta
