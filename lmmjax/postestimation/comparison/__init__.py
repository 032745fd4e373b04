"""Models beside each other: nested ones, terms left out, other optimisers and other formulas."""
