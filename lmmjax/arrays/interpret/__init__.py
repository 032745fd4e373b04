"""Small programs without a compiler: what JAX traced, written down as a tape and played by NumPy.

`tape` writes down, `play` plays; `rules`, `moves`, `indexing` and `linear` say what NumPy does for which
primitive.
"""

from lmmjax.arrays.interpret.play import TooLong, player
from lmmjax.arrays.interpret.tape import Tape, Unsupported, record_tape

__all__ = ["Tape", "TooLong", "Unsupported", "player", "record_tape"]
