"""One small data frame with every kind of column, and its columns as arrays."""

import numpy as np
import pandas as pd

N = 24
RNG = np.random.default_rng(7)
DATA = pd.DataFrame(
    {
        "y": RNG.normal(size=N),
        "x": np.linspace(0.5, 5, N) + RNG.normal(size=N) / 9,
        "k": np.arange(N) % 4,
        "f": np.tile(["b", "a", "c"], 8),
        "flag": np.arange(N) % 5 == 0,
        "g": np.repeat([40, 10, 30, 20], 6),
        "h": np.tile(["q", "q", "p"], 8),
        "size": pd.Categorical(
            np.tile(["low", "mid", "high", "low"], 6), ["low", "mid", "high", "none"], ordered=True
        ),
        "my col": RNG.normal(size=N),
        "dot.ted": RNG.normal(size=N),
    },
    index=pd.Index([f"r{i}" for i in range(N)]),
)
ONE = np.ones(N)
Y, X, F, K, FLAG = (DATA[name].to_numpy() for name in ("y", "x", "f", "k", "flag"))
SIZE = np.asarray(DATA["size"])


def columns(*parts) -> np.ndarray:
    return np.column_stack([np.asarray(part, dtype=float) for part in parts])


def orthonormal(x, degree):
    """Orthogonal polynomials by QR, with the sign of the leading coefficient."""
    q, r = np.linalg.qr(np.vander(x - x.mean(), degree + 1, increasing=True))
    return (q * np.sign(np.diag(r)))[:, 1:]
