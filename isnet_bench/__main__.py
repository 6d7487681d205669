"""``python -m isnet_bench``."""

import gc
import sys

# Imports make a million objects that stay. To look for garbage among them, again and again while they come and once
# more when the process ends, takes a third of what a short job needs.
gc.set_threshold(100_000, 50, 50)

from isnet_bench.cli import main  # noqa: E402

status = main()
gc.freeze()
sys.exit(status)
