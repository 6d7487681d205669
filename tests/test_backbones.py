"""Backbones: those that can be made, and one sentence before training for those that cannot as they are asked for."""

import os
import socket
import subprocess
import sys

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from isnet_bench.io.errors import BenchError
from isnet_bench.methods import backbones


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "googlenet"])
def test_backbones_of_both_libraries(name):
    options = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
    network = backbones.create(name, 5, 1, 32, **options).eval()
    assert network(torch.rand(1, 1, 32, 32)).shape == (1, 5)


def test_small_resnet_is_timms_and_knows_no_other_non_linearity():
    from timm.models.resnet import BasicBlock, ResNet

    network = backbones.create("resnet_small", 10, 1, 28)
    plain = ResNet(BasicBlock, (1, 1, 1), 10, 1, stem_type="deep", stem_width=8, channels=(16, 32, 64))
    plain.load_state_dict(network.state_dict())
    inner = {type(module) for module in network.modules() if not list(module.children())}
    activations = {kind for kind in inner if kind.__module__ == "torch.nn.modules.activation"}
    assert activations == {nn.ReLU}
    assert network(torch.rand(2, 1, 28, 28)).shape == (2, 10)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet_smal", {}, r"unknown backbone 'resnet_smal'; similar or common ones: resnet_small"),
        ("qqqqqqqqqq", {}, r"unknown backbone 'qqqqqqqqqq'; .*resnet18, densenet121"),
        ("resnet18", {"depth": 3}, r"backbone resnet18 cannot be made with the options \{'depth': 3\}: .*depth"),
    ],
)
def test_impossible_backbones(name, options, message):
    with pytest.raises(BenchError, match=message):
        backbones.create(name, 10, 1, 28, **options)


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


@pytest.mark.parametrize("channels", [1, 3])
def test_a_backbone_starts_from_the_weights_in_a_file(tmp_path, channels):
    source = timm.create_model("test_resnet", num_classes=1000)
    path = tmp_path / "weights.safetensors"
    save_file(source.state_dict(), path)
    network = backbones.create("test_resnet", 4, channels, 32, pretrained=str(path))
    found, given = network.state_dict(), source.state_dict()
    others = [name for name in given if found[name].shape != given[name].shape]
    head = [name for name in given if name.startswith("fc.")]
    assert others == (head if channels == 3 else ["conv1.0.weight", *head])
    for name in set(given) - set(others):
        assert torch.equal(found[name], given[name]), name
    if channels == 1:
        torch.testing.assert_close(found["conv1.0.weight"], given["conv1.0.weight"].sum(1, keepdim=True))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            None,
            r"there is no file .*a\.safetensors, .*: put timm's weights of test_resnet there .*, or correct the path",
        ),
        (b"?", r"a\.safetensors does not hold timm's weights of test_resnet \(.+\): name another file"),
    ],
)
def test_a_file_without_weights_is_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(BenchError, match=message):
        backbones.create("test_resnet", 4, 3, 32, pretrained=str(tmp_path / "a.safetensors"))


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
