"""The methods with which the ISNets are compared: one module each, which defines ``METHOD``."""

from isnet_bench.io import torchvision_shim

torchvision_shim.ensure()
