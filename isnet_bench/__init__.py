"""The benchmark: data with a background bias, training, evaluation, and reports of what came out."""

import isnet  # noqa: F401  (before anything that imports torchvision, see isnet._compat)
