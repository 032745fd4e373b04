"""One kernel and equal designs within its levels: after a rotation of levels, independent groups."""
