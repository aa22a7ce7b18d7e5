"""`python -m qsde`: the command, where its script is not on the path."""

from qsde.cli import main

main()
