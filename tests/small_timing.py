"""The smallest timing configuration, for the tests of its outcome and of its cases."""

import pytest

from isnet_bench import config as configuration


@pytest.fixture
def given():
    """The smallest timing section, as a user would write it in a configuration."""
    section = {
        "classes": [2],
        "methods": ["resnet"],
        "backbone": {"name": "resnet_small", "options": {}},
        "image_size": 16,
        "batch_size": 2,
        "rounds": 2,
    }
    return {"seeds": [0], "device": "cpu", "experiments": {}, "timing": section}


@pytest.fixture
def config(given):
    """The same, checked."""
    return configuration.check(given, "test")
