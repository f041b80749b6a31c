"""`python -m search`: the `whisperfit` command, by the Python that runs."""

from search.cli import main

main()
