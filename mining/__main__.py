"""``python -m mining``: the command line."""

from mining.cli import main

main()
