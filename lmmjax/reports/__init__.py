"""Fits as people read them: the printed summary, tidy frames, tables over many responses, the structure."""
