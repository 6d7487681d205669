"""The smallest timing configuration, for the tests of its outcome and of its cases."""

import pytest

from isnet_bench import config as configuration


@pytest.fixture
def config():
    """The smallest timing section, checked."""
    section = {
        "classes": [2],
        "methods": ["resnet"],
        "backbone": {"name": "resnet_small", "options": {}},
        "image_size": 16,
        "batch_size": 2,
        "rounds": 2,
    }
    return configuration.check({"seeds": [0], "device": "cpu", "experiments": {}, "timing": section}, "test")
