"""One term with a kernel of small blocks: an eigendecomposition of each, and the rows as independent ones."""
