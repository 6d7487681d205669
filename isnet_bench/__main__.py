"""``python -m isnet_bench``."""

import sys

from isnet_bench.cli import main

sys.exit(main())
