"""`python -m tenantry.cli`: the console script, by the interpreter that runs this."""

from tenantry.cli import main

main()
