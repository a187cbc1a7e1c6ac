"""``python -m gradref``: the command line, also for ``torchrun -m gradref``."""

from gradref.cli import main

main()
