"""Candidates beside a fitted model: what a column g adds to it, with V held at the null fit's.

With P = V⁻¹ − V⁻¹X(XᵀV⁻¹X)⁻¹XᵀV⁻¹ of the model without candidates,

    a = yᵀPy,    b = gᵀPy,    c = gᵀPg,    ċ_j = −∂c/∂ψ_j = gᵀPV_jPg,

V_j = ∂V/∂ψ_j. Everything else of a scan at a fixed ratio is made of these. Where candidates are constant
within units, whose rows are independent of those of other units, a and c are products of the values of the
units, or of their squares, with numbers that are formed once: rows are not touched again.

Source: Frisch & Waugh (1933), doi:10.2307/1907330, in the metric of V⁻¹.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from lmmjax.design import Design
from lmmjax.inference.scan.inverses import Features, Inverse, RowInverse

DEPENDENT = 1e-9
"""Length that X must leave of a candidate, of 1, for it to be told from X."""


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
    """Of t responses and M candidates of k columns.

    Attributes
    ----------
    a : (t,) yᵀPy; b : (t, M, k) gᵀPy; c : (t, M, k, k) gᵀPg, NaN where X spans a candidate.
    slopes : (t, M, m + 1, k, k) gᵀPV_jPg, or (t, M, 0, k, k) where they were not asked for.
    """

    a: np.ndarray
    b: np.ndarray
    c: np.ndarray
    slopes: np.ndarray


class NullModel:
    """t responses that share a design, at their null fits.

    Parameters
    ----------
    design : of all of them; inverse : V⁻¹ of each.
    y : (n, t) responses, less their offset; slopes : whether ċ_j will be asked for.
    """

    def __init__(self, design: Design, inverse: Inverse, y: np.ndarray, slopes: bool):
        self.inverse, self.design = inverse, design
        x = np.asarray(design.x)
        self.x = np.linalg.qr(x)[0] if x.shape[1] else x
        e = (y - self.x @ (self.x.T @ y)).T[:, :, None]
        wx = inverse.apply(self.x)
        # V⁻¹X in coordinates with XᵀV⁻¹X = I
        factor = np.linalg.cholesky(self.x.T @ wx)
        self.wx = np.swapaxes(np.linalg.solve(factor, np.swapaxes(wx, 1, 2)), 1, 2)
        v = inverse.own(e)
        self.u = (v - self.wx @ (np.swapaxes(self.wx, 1, 2) @ e))[:, :, 0]
        self.a = np.einsum("tn,tn->t", e[:, :, 0], self.u)
        self.slopes = slopes
        if slopes:
            moved = list(inverse.slopes(self.wx))
            # X̂ᵀV⁻¹V_jV⁻¹X̂ (t, m + 1, p, p), and V⁻¹V_jV⁻¹X̂ (t, m + 1, n, p)
            self.inner = np.stack([np.swapaxes(self.wx, 1, 2) @ v for v in moved], axis=1)
            self.edge = np.stack([inverse.own(v) for v in moved], axis=1)

    @property
    def lanes(self) -> int:
        return len(self.a)

    def rows(self, found: Features, void: np.ndarray) -> Moments:
        """Of candidates `beside_x`, and which of their columns X spans (k, M)."""
        n, k, count = found.g.shape
        flat = found.g.reshape(n, -1)

        def along(w: np.ndarray) -> np.ndarray:
            """wᵀg (t, r, k, M) of w (t, n, r)."""
            t, _, r = w.shape
            return (np.moveaxis(w, 2, 1).reshape(t * r, n) @ flat).reshape(t, r, k, count)

        forms, forms_slopes = self.inverse.forms(found, self.slopes)
        b, inside = along(self.u[:, :, None])[:, 0], along(self.wx)
        edges = [along(self.edge[:, j]) for j in range(self.edge.shape[1])] if self.slopes else []
        return self.moments(np.moveaxis(b, 1, 2), inside, edges, forms, forms_slopes, void)

    def own(self, g: np.ndarray) -> Moments:
        """Of one candidate g (n, k, t) for every response, its own."""
        g, void = beside_x(self.x, g)
        own = np.moveaxis(g, 2, 0)
        w = self.inverse.own(own)
        forms = np.swapaxes(own, 1, 2) @ w
        slopes = np.zeros((len(own), 0, *forms.shape[1:]))
        if self.slopes:
            moved = [np.swapaxes(w, 1, 2) @ v for v in self.inverse.slopes(w)]
            slopes = np.stack(moved, axis=1)
        b = np.einsum("tn,tnk->tk", self.u, own)
        inside = (np.swapaxes(self.wx, 1, 2) @ own)[..., None]
        edges = [(np.swapaxes(self.edge[:, j], 1, 2) @ own)[..., None] for j in range(slopes.shape[1])]
        none = np.zeros((g.shape[1], 1), bool)
        found = self.moments(b[:, None], inside, edges, forms[:, None], slopes[:, None], none)
        found.c[:, 0][void.any(axis=0)] = np.nan
        return found

    def moments(
        self,
        b: np.ndarray,
        inside: np.ndarray,
        edges: list[np.ndarray],
        forms: np.ndarray,
        slopes: np.ndarray,
        void: np.ndarray,
    ) -> Moments:
        """From b (t, M, k), X̂ᵀV⁻¹g (t, p, k, M), X̂ᵀV⁻¹V_jV⁻¹g and forms of g in V⁻¹ and V⁻¹V_jV⁻¹.

        With l = X̂ᵀV⁻¹g and l_j = X̂ᵀV⁻¹V_jV⁻¹g:  c = gᵀV⁻¹g − lᵀl,
        ċ_j = gᵀV⁻¹V_jV⁻¹g − lᵀl_j − l_jᵀl + lᵀ(X̂ᵀV⁻¹V_jV⁻¹X̂)l.
        """
        l = np.moveaxis(inside, 3, 1)
        lt = np.swapaxes(l, 2, 3)
        c = forms - lt @ l
        out = np.empty_like(slopes)
        for j, edge in enumerate(edges):
            cross = lt @ np.moveaxis(edge, 3, 1)
            middle = lt @ (self.inner[:, j, None] @ l)
            out[:, :, j] = slopes[:, :, j] - cross - np.swapaxes(cross, 2, 3) + middle
        lost = ~(np.einsum("tmkk->tmk", c) > DEPENDENT * np.abs(np.einsum("tmkk->tmk", forms)))
        c[(lost | void.T[None]).any(axis=2)] = np.nan
        return Moments(self.a, b, c, out)


def alone(inverse: RowInverse, x: np.ndarray, g: np.ndarray) -> Moments:
    """c and ċ_j of one candidate g (n, k) beside orthonormal x (n, p), of one response; a and b are zero.

    With S = [X g]ᵀV⁻¹[X g], S_j = [X g]ᵀV⁻¹V_jV⁻¹[X g] and B = [−S_xx⁻¹S_xg; I]:  c = S_gg − S_gxS_xx⁻¹S_xg,
    ċ_j = BᵀS_jB.
    """
    left, void = beside_x(x, g[:, :, None])
    w, p, k = np.concatenate([x, left[:, :, 0]], axis=1), x.shape[1], g.shape[1]
    v = inverse.solve(w)
    s = w.T @ v
    b = np.concatenate([-np.linalg.solve(s[:p, :p], s[:p, p:]), np.eye(k)])
    c = s[p:, p:] + s[p:, :p] @ b[:p]
    slopes = np.stack([b.T @ (v.T @ moved[0]) @ b for moved in inverse.slopes(v[None])])
    lost = ~(np.diagonal(c) > DEPENDENT * np.abs(np.diagonal(s)[p:])) | void[:, 0]
    c = np.where(lost.any(), np.nan, c)
    return Moments(np.zeros(1), np.zeros((1, 1, k)), c[None, None], slopes[None, None])


def beside_x(x: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Candidates (n, k, M) less their least squares on orthonormal x (n, p), and which x spans (k, M)."""
    flat = g.reshape(len(g), -1)
    left = flat - x @ (x.T @ flat)
    whole = np.einsum("nm,nm->m", flat, flat)
    void = np.einsum("nm,nm->m", left, left) <= DEPENDENT**2 * whole
    return left.reshape(g.shape), void.reshape(g.shape[1:])


class UnitSums:
    """Candidates that are constant within units, times the columns of `carriers`: values s (I, M) of I units.

    Parameters
    ----------
    codes : (n,) unit of every row, whose rows are independent of those of other units.
    carriers : (n, k): a column of a candidate is a carrier times the value of the unit.
    """

    def __init__(self, null: NullModel, codes: np.ndarray, carriers: np.ndarray, units: int):
        import scipy.sparse as sp

        self.null, n = null, len(codes)
        k, t = carriers.shape[1], null.lanes
        sums = sp.csr_array((np.ones(n), (codes, np.arange(n))), shape=(units, n))

        def of(w: np.ndarray) -> np.ndarray:
            """Sums (I, t·r·k) of carriers × w (t, n, r)."""
            both = np.moveaxis(w, 1, 0)[..., None] * carriers[:, None, None]
            return sums @ both.reshape(n, -1)

        edges = [null.edge[:, j] for j in range(null.edge.shape[1])] if null.slopes else []
        self.shape, self.m = (t, k), len(edges)
        parts = [of(null.u[:, :, None]), of(null.wx), *(of(w) for w in edges)]
        self.linear = np.concatenate(parts, axis=1)
        w = null.inverse.apply(carriers)
        squares = [of(w)]
        if null.slopes:
            moved = list(null.inverse.slopes(w))
            for v in moved:
                own = np.einsum("tna,tnb->ntab", w, v).reshape(n, -1)
                squares.append(sums @ own)
        self.squares = np.concatenate(squares, axis=1)
        inside = carriers - null.x @ (null.x.T @ carriers)
        length = np.linalg.norm(carriers, axis=0)
        # a constant added to s then adds what X spans
        self.centred = bool(np.all(np.linalg.norm(inside, axis=0) <= 1e-10 * length))

    def moments(self, s: np.ndarray) -> Moments:
        """Of candidates with values s (I, M)."""
        (t, k), p, count = self.shape, self.null.x.shape[1], s.shape[1]
        if self.centred:
            s = s - s.mean(axis=0)
        first, second = self.linear.T @ s, self.squares.T @ (s * s)
        b = np.moveaxis(first[: t * k].reshape(t, k, count), 1, 2)
        at, blocks = t * k, []
        for _ in range(1 + self.m):
            blocks.append(first[at : at + t * p * k].reshape(t, p, k, count))
            at += t * p * k
        forms = np.moveaxis(second.reshape(1 + self.m, t, k, k, count), 4, 2)
        slopes = np.moveaxis(forms[1:], 0, 2)
        return self.null.moments(b, blocks[0], blocks[1:], forms[0], slopes, np.zeros((k, count), bool))


def independent_units(design: Design, codes: np.ndarray) -> bool:
    """Whether rows of different units (n,) are independent in V."""
    import scipy.sparse as sp
    from scipy.sparse.csgraph import connected_components

    n, rows = design.n, np.arange(design.n)
    blocks = [term.blocks for term in design.terms]
    blocks += [] if design.residual is None else [design.residual.codes]
    joined = [sp.csr_array((np.ones(n), (rows, own)), shape=(n, int(own.max()) + 1)) for own in blocks]
    if not joined:
        return True
    links = sp.hstack(joined, format="csr")
    _, label = connected_components(sp.block_array([[None, links], [links.T, None]]), directed=False)
    # every independent block of rows belongs to one unit
    _, first, block = np.unique(label[:n], return_index=True, return_inverse=True)
    return bool(np.array_equal(codes[first][block], codes))
