"""200 individuals of 40 sibships, 1,000 SNPs, 1 % of the genotypes missing, a phenotype; as a PLINK file."""

from pathlib import Path

import numpy as np

r = np.random.default_rng(20240611)
n, m = 200, 1000
family = np.repeat(np.arange(40), 5)
f = r.uniform(0.03, 0.5, m)
parents = r.binomial(1, f, (40, 4, m))
g = np.empty((n, m), int)
for i in range(n):
    one = parents[family[i], r.integers(0, 2, m), np.arange(m)]
    g[i] = one + parents[family[i], 2 + r.integers(0, 2, m), np.arange(m)]
missing = r.random((n, m)) < 0.01
x = r.normal(size=n).round(4)
effects = np.zeros(m)
effects[r.choice(m, 40, False)] = r.normal(0, 0.25, 40)
y = (1 + 0.5 * x + g @ effects + r.normal(0, 1, n)).round(6)

# two bits a genotype, individuals within markers: 00 two copies of A1, 01 missing, 10 one, 11 none
code = np.where(missing, 1, np.array([3, 2, 0])[g]).astype(np.uint8).T
code = np.pad(code, ((0, 0), (0, (-n) % 4)))
packed = code[:, 0::4] | code[:, 1::4] << 2 | code[:, 2::4] << 4 | code[:, 3::4] << 6
Path("d.bed").write_bytes(bytes([0x6C, 0x1B, 0x01]) + packed.tobytes())
Path("d.bim").write_text("".join(f"1\trs{k + 1}\t0\t{k + 1}\tA\tG\n" for k in range(m)))
Path("d.fam").write_text("".join(f"F{family[i]} I{i} 0 0 0 {y[i]:.6f}\n" for i in range(n)))
