"""What tests of prior densities evaluate, for terms and for structures of residuals."""

import jax

from lmmjax.arrays import quick_jit
from lmmjax.bayes.coordinates import components, from_natural, log_prior, natural


def evaluated(structure, priors):
    """Of u: ψ, ∂ψ/∂u, log p by way of u and by way of ψ, and the Jacobian."""

    @quick_jit
    def at(u):
        parts, jacobian = components(u, structure, priors)
        psi = natural(parts, structure)
        slopes = jax.jacfwd(lambda u: natural(components(u, structure, priors)[0], structure))(u)
        again = log_prior(from_natural(psi, structure, priors), priors)
        return psi, slopes, log_prior(parts, priors), again, jacobian

    return at
