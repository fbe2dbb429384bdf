"""``python -m modelio``."""

from modelio.cli import main

main()
