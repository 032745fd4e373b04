"""Two traits of 20 families of five, with a covariate, and what GEMMA 0.98.5 says of them.

`python make_bivariate.py` in an empty folder, then
`gemma -g g.txt -p p.txt -c c.txt -k K.txt -n 1 2 -lmm 1 -o o`; numbers of `output/o.log.txt` are in
`tests/adapters/test_multitrait.py`.
"""

import numpy as np

rng = np.random.default_rng(5)
n = 100
fam = np.kron(np.eye(n // 5), 0.5 * np.ones((5, 5)) + 0.5 * np.eye(5))
G = rng.normal(size=(n, 400))
K = np.round(0.7 * fam + 0.3 * G @ G.T / 400, 4)
K = (K + K.T) / 2
L = np.linalg.cholesky(K + 1e-3 * np.eye(n))
y = L @ rng.normal(size=(n, 2)) @ np.array([[1.2, 0.6], [0, 0.9]]) + rng.normal(size=(n, 2)) @ np.array(
    [[0.8, -0.3], [0, 0.7]]
)
x = rng.normal(size=n)
y += x[:, None] * [0.5, -0.2]
y, x = np.round(y, 4), np.round(x, 4)
np.savetxt("K.txt", K, fmt="%.4f")
np.savetxt("p.txt", y, fmt="%.4f")
np.savetxt("c.txt", np.column_stack([np.ones(n), x]), fmt="%.4f")
g = rng.integers(0, 3, (3, n))
with open("g.txt", "w") as f:
    for k in range(3):
        f.write(f"rs{k}, A, T, " + ", ".join(map(str, g[k])) + "\n")
