"""`python -m triune`: the command line."""

from triune.cli import main

main()
