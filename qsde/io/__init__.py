"""Readers of vendor option-chain files, and files written in one piece."""

from qsde.io.files import MAX_BYTES
from qsde.io.read import read_quotes
from qsde.io.vendors import VENDORS
from qsde.writing import write_atomic

__all__ = ["MAX_BYTES", "VENDORS", "read_quotes", "write_atomic"]
