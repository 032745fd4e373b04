"""The matrices of a fitted model written out, from its frame and its table of variance components."""

import numpy as np


def covariances(fit):
    """D in the units of y, per random term, from `varcorr()`."""
    table = fit.varcorr()
    rows, out = list(table.itertuples())[:-1], []
    for term in fit.model.frame.random:
        matrix = np.zeros((len(term.names),) * 2)
        while rows and rows[0].group == term.group and rows[0].term1 in term.names:
            row = rows.pop(0)
            i = term.names.index(row.term1)
            j = i if row.term2 is None else term.names.index(row.term2)
            matrix[i, j] = matrix[j, i] = row.vcov
        out.append(matrix)
    return out


def indicators(term):
    """Z (n, Gq) of a term, columns group after group."""
    z = np.zeros((len(term.z), len(term.levels), term.z.shape[1]))
    z[np.arange(len(term.z)), term.codes] = term.z
    return z.reshape(len(term.z), -1)


def matrices(fit):
    """X, Z (n, Σ Gq), G = Var(b), R = Var(ε), V = ZGZᵀ + R."""
    frame = fit.model.frame
    z = np.hstack([indicators(term) for term in frame.random])
    blocks = [np.kron(np.eye(len(t.levels)), d) for t, d in zip(frame.random, covariances(fit), strict=True)]
    g = np.zeros((z.shape[1],) * 2)
    at = 0
    for block in blocks:
        g[at : at + len(block), at : at + len(block)] = block
        at += len(block)
    r = fit.scale * np.diag(1 / (np.ones(fit.nobs) if frame.weights is None else frame.weights))
    return frame.x, z, g, r, z @ g @ z.T + r


def split(fit, values):
    """A vector (or square matrix, by its diagonal blocks) over all b, per term: (G, q) or (G, q, q)."""
    out, at = [], 0
    for term in fit.model.frame.random:
        groups, q = len(term.levels), len(term.names)
        part = slice(at, at + groups * q)
        if values.ndim == 1:
            out.append(values[part].reshape(groups, q))
        else:
            block = values[part, part].reshape(groups, q, groups, q)
            out.append(np.stack([block[k, :, k] for k in range(groups)]))
        at += groups * q
    return out
