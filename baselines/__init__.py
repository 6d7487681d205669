"""The methods with which the ISNets are compared: one module each, which defines ``METHOD``."""

import isnet  # noqa: F401  (before anything that imports torchvision, see isnet._compat)
