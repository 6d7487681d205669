"""``python -m isnet_bench``."""

import gc
import sys

# Imports make a million objects that stay. To look for garbage among them, again and again while they come and once
# more when the process ends, takes a third of what a short job needs.
gc.set_threshold(100_000, 50, 50)

try:
    from isnet_bench.cli import main
except ModuleNotFoundError as error:
    sys.exit(f"error: the package {error.name} is missing; install what the benchmark needs: pip install '.[bench]'")

status = main()
gc.freeze()
sys.exit(status)
