"""Readers of vendor option-chain files, and files written in one piece."""

from qsde.io.files import MAX_BYTES, write_atomic
from qsde.io.read import read_quotes
from qsde.io.vendors import VENDORS

__all__ = ["MAX_BYTES", "VENDORS", "read_quotes", "write_atomic"]
