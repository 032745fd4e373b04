"""Models and fits as files: what they were made from and their estimates, as plain data; no code, no pickle.

A file keeps the formula, its options and the columns that these read, beside the estimates. Reading it
evaluates the formula again, as `lmm` does, and compares the likelihood of the estimates with the one kept.
"""

from lmmjax.saving.records import Record, load_record, save_record

__all__ = ["Record", "load_record", "save_record"]
