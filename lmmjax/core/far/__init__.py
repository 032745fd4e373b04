"""Responses whose random effects dwarf what is left: fitted in coordinates of their own.

Where the coefficients of groups vary along v by 1e8 σ² or more, D in coordinates of which v is no axis is
vvᵀ times that, and what varies across v is among its last digits; so it is in I + RᵀDR where v is not the
first of the columns that are orthogonalised within groups, and in XᵀH⁻¹X where columns of X mix what lies in
Zv with what does not. These responses get

    Z′ = Z̃W,    X′ = X̃V,

W the axes of their groups' coefficients by least squares, the largest first, V first what lies in the first
columns of Z′. In them all these matrices are graded, and elimination keeps the digits of every entry. The
estimate comes back by D = OD′Oᵀ, β = Tβ′.
"""
