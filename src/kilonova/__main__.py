"""`python -m kilonova` is the `kilonova` command."""

from kilonova.cli.main import main

main()
