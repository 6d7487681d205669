"""Data and configurations that take no time, for all tests."""

import pytest
import torch

import isnet
from isnet_bench import data as datasets
from isnet_bench.io import torchvision_shim

torchvision_shim.ensure()


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_given():
    """A configuration of one experiment on very few of scikit-learn's digits, as a user would write it."""
    return {
        "seeds": [0],
        "device": "cpu",
        "experiments": {
            "tiny": {
                "data": {
                    "name": "mnist",
                    "train_images": 90,
                    "val_images": 20,
                    "test_images": 30,
                    "download": False,
                },
                "backbone": {"name": "resnet_small"},
                "training": {
                    "epochs": 3,
                    "batch_size": 20,
                    "learning_rate": 2e-3,
                    "weight_decay": 1e-4,
                    "gradient_clip": 1.0,
                },
                "methods": {"resnet": {}, "stochastic_isnet": {"params": {"c1": 1.0, "c2": 10.0}}},
            }
        },
    }


@pytest.fixture(scope="session")
def tiny_config(tiny_given):
    """The same, checked."""
    from isnet_bench import config as configuration

    return configuration.check(tiny_given, "the test's configuration")


@pytest.fixture(scope="session")
def tiny_data(tiny_config, tmp_path_factory):
    """Folder of that experiment's data, made where there is no MNIST."""
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISNET_BENCH_DATA", str(tmp_path_factory.mktemp("nothing")))
        datasets.prepare("tiny", tiny_config, folder)
    return folder


@pytest.fixture(params=[isnet.LRPFlex, isnet.LRPBlock])
def engine(request):
    """Each of the library's engines."""
    return request.param
