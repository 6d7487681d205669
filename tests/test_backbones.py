"""Backbones that cannot be made as they are asked for: one sentence each, before training."""

import os
import socket
import subprocess
import sys

import pytest
import timm
import torch

from isnet_bench.io.errors import BenchError
from isnet_bench.methods import backbones


@pytest.mark.parametrize("name", ["googlenet", "inception_v3_of_torchvision"])
def test_auxiliary_outputs_are_refused_before_training(name, monkeypatch):
    name = name.removesuffix("_of_torchvision")
    # timm has an inception_v3, too, which returns logits alone.
    monkeypatch.setattr(timm, "is_model", lambda name: False)
    with pytest.raises(BenchError, match=rf"^backbone {name} returns more than logits: .* aux_logits: false$"):
        backbones.create(name, 4, 3, 64, init_weights=False)
    network = backbones.create(name, 4, 3, 64, init_weights=False, aux_logits=False).eval()
    assert network(torch.rand(1, 3, 96, 96)).shape == (1, 4)


@pytest.mark.parametrize("options", [{"weights": "DEFAULT"}, {"pretrained": True}])
def test_weights_of_torchvision_are_refused_with_a_remedy(options):
    with pytest.raises(BenchError, match=r"mnasnet0_5 is torchvision's, .*model of timm, .* pretrained: true$"):
        backbones.create("mnasnet0_5", 4, 3, 64, **options)


def test_pretrained_weights_without_a_network_are_refused_in_one_sentence_and_at_once(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
        code = (
            "from isnet_bench.io.errors import BenchError\nfrom isnet_bench.methods import backbones\n"
            "try:\n    backbones.create('test_resnet', 4, 3, 64, pretrained=True)\n"
            "except BenchError as error:\n    print(error)\n"
        )
        environment = os.environ | {"HF_ENDPOINT": nobody, "HF_HOME": str(tmp_path), "NO_PROXY": "127.0.0.1"}
        options = {"env": environment, "capture_output": True, "text": True, "timeout": 60}
        answer = subprocess.run([sys.executable, "-c", code], check=True, **options)
    (line,) = answer.stdout.splitlines()
    assert line.startswith("the pretrained weights of test_resnet cannot be had (")
    assert line.endswith("or leave the option pretrained out")
    assert "Retrying" not in answer.stderr
