"""`python -m tectum`: the command line."""

from tectum.cli import main

main()
