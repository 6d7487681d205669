"""How LRP-Block reads a forward pass: what it understands, and that it refuses the rest."""

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

import isnet

CLASSES = 4


class Functional(nn.Module):
    """A network whose forward pass, up to the output layer, is given as a function of (network, images)."""

    def __init__(self, function, features):
        super().__init__()
        torch.manual_seed(4)
        self.conv = nn.Conv2d(3, 8, 3, padding=1, dtype=torch.float64)
        self.other = nn.Conv2d(8, 8, 3, padding=1, dtype=torch.float64)
        self.norm = nn.BatchNorm2d(8, dtype=torch.float64)
        self.act = nn.GELU()
        self.fc = nn.Linear(features, CLASSES, dtype=torch.float64)
        self.function = function

    def forward(self, images):
        return self.fc(self.function(self, images).flatten(1))


def images():
    torch.manual_seed(5)
    return torch.rand(2, 3, 8, 8, dtype=torch.float64)


def map_of(function, features=8 * 64, quantity=None, **options):
    network = Functional(function, features)
    return isnet.LRPBlock(network, **options)(images(), quantity or isnet.JointLogits()).relevance


def written_into_a_view(net, x):
    h = net.conv(x)
    h.view(-1).relu_()
    return h


def written_into_a_buffer(net, x):
    buffer = torch.zeros(2, 8, 8, 8, dtype=torch.float64)
    buffer[:, :4] = net.conv(x)[:, :4]
    return buffer


def normalised_and_not(net, x):
    h = net.conv(x)
    return net.norm(h).relu() + h.relu()


def never_fused(net, x):
    h = net.conv(x)
    return net.norm(h * 1).relu() + h.relu()


def read_after_in_place(net, x):
    h = net.conv(x).relu()
    kept = net.other(h)
    h += kept
    return h.relu_()


def convolved(net, x):
    return net.conv(x)


def rectified(net, x):
    return net.conv(x).relu()


EQUIVALENT = {
    "padding before": (lambda net, x: F.conv2d(F.pad(x, (1, 1, 1, 1)), net.conv.weight, net.conv.bias), convolved),
    "padding same": (lambda net, x: F.conv2d(x, net.conv.weight, net.conv.bias, padding="same"), convolved),
    "rearranged image": (lambda net, x: net.conv(torch.cat([x[:, :1], x[:, 1:].clone()], 1)), convolved),
    "chunks": (lambda net, x: torch.cat(net.conv(x).relu().chunk(4, 1), 1), rectified),
    "transposed": (lambda net, x: net.conv(x).relu().permute(0, 2, 3, 1).transpose(1, 3).transpose(2, 3), rectified),
    "in-place sum": (read_after_in_place, lambda net, x: (rectified(net, x) + net.other(rectified(net, x))).relu()),
    "python's sum": (
        lambda net, x: sum([net.conv(x).relu(), net.other(net.conv(x)).relu()]),
        lambda net, x: net.conv(x).relu() + net.other(net.conv(x)).relu(),
    ),
    "a batch norm beside another reader": (normalised_and_not, never_fused),
    "scaled by a number": (lambda net, x: (net.conv(x).relu() * 4).div(2), lambda net, x: 2 * net.conv(x).relu()),
    "dropout in evaluation": (lambda net, x: F.dropout(net.conv(x).relu(), training=False), rectified),
    "a branch that leads nowhere": (lambda net, x: (net.act(net.conv(x)), net.conv(x).relu())[1], rectified),
}


@pytest.mark.parametrize("case", EQUIVALENT)
@pytest.mark.parametrize("input_rule", ["zb", "epsilon"])
def test_different_ways_to_write_a_network_give_one_map(case, input_rule):
    one, other = EQUIVALENT[case]
    torch.testing.assert_close(map_of(one, input_rule=input_rule), map_of(other, input_rule=input_rule))


def test_zb_rule_of_a_flattened_image():
    found = map_of(lambda net, x: x, 3 * 64, rules=("epsilon",), quantity=isnet.Logit(0)).flatten(1)
    layer, x = Functional(lambda net, x: x, 3 * 64).fc, images().flatten(1)
    w, b = layer.weight[0], layer.bias[0]
    z = x @ w + b - (w.clamp(max=0).sum() + b.clamp(max=0))
    torch.testing.assert_close(found, (x * w - w.clamp(max=0)) * ((x @ w + b) / (z + 1e-2))[:, None])


def test_dropped_units_get_no_relevance():
    network = Functional(lambda net, x: net.drop(net.conv(x).relu()), 8 * 64)
    network.drop = nn.Dropout()
    outputs = []
    network.drop.register_forward_hook(lambda *call: outputs.append(call[-1]))
    relevance = isnet.LRPBlock(network, layers=("drop",))(images(), isnet.JointLogits()).layers["drop"]
    alive = outputs[0] != 0
    assert 0.1 < alive.double().mean() < 0.4
    assert bool((relevance[:, 1][~alive] == 0).all())
    assert bool((relevance[:, 1][alive] != 0).all())


def outside_torch_functions(x):
    with torch._C.DisableTorchFunction():
        return x.tanh()


def image_as_weights(net, x):
    return F.conv2d(net.conv(x), x[:1, :1, :3, :3].expand(8, 8, 3, 3), padding=1)


UNSUPPORTED = {
    "another activation": (lambda net, x: net.act(net.conv(x)), r"gelu' in act \(GELU\)"),
    "a functional one": (lambda net, x: F.silu(net.conv(x)), r"silu' in the network itself \(Functional\)"),
    "a gate": (lambda net, x: net.conv(x) * net.conv(x).sigmoid(), "Tensor.mul"),
    "scaling by a tensor": (lambda net, x: net.conv(x) * net.conv.bias[0], "by a tensor"),
    "a reciprocal": (lambda net, x: 1 / net.conv(x), "LRP-Block"),
    "a rounded quotient": (lambda net, x: net.conv(x).div(2, rounding_mode="floor"), "argument rounding_mode"),
    "a constant term": (lambda net, x: net.conv(x) + 1.0, "does not come from"),
    "a weighted sum": (lambda net, x: net.conv(x).add(net.conv(x), alpha=2), "does not come from"),
    "a broadcasting sum": (lambda net, x: net.conv(x) + net.conv(x)[:, :1], "broadcasting"),
    "constant channels": (
        lambda net, x: torch.cat([net.conv(x)[:, :4], torch.ones_like(net.conv(x)[:, 4:])], 1),
        "joining",
    ),
    "weights made of the image": (image_as_weights, "parameters that do not depend"),
    "a mean over images": (lambda net, x: net.conv(x).mean(0, keepdim=True).expand(2, -1, -1, -1), "mean over images"),
    "padding with ones": (lambda net, x: F.pad(net.conv(x)[..., 2:], (1, 1), value=1.0), "padding with"),
    "a number read from it": (lambda net, x: net.conv(x) * net.conv(x).max().item(), "'item'"),
    "a way through numpy": (lambda net, x: torch.from_numpy(net.conv(x).detach().numpy()), "'numpy'"),
    "a write through a view": (written_into_a_view, "overwritten in place"),
    "a write into a buffer": (written_into_a_buffer, "__setitem__"),
    "a hidden function": (lambda net, x: outside_torch_functions(net.conv(x)), "cannot be traced back"),
    "a hidden branch": (lambda net, x: net.conv(x) + outside_torch_functions(net.conv(x)), "come from"),
}


@pytest.mark.parametrize("case", UNSUPPORTED)
def test_an_operation_without_a_rule_is_an_error_that_names_it(case):
    function, message = UNSUPPORTED[case]
    with pytest.raises(isnet.UnsupportedNetworkError, match=message):
        map_of(function)


def test_quantities_that_do_not_fit():
    with pytest.raises(ValueError, match="epsilon rule"):
        map_of(lambda net, x: net.conv(x).relu(), quantity=isnet.SoftmaxEta())
    explain = isnet.LRPBlock(torchvision.models.squeezenet1_1(num_classes=CLASSES).eval())
    with pytest.raises(isnet.UnsupportedNetworkError, match="straight from a linear layer"):
        explain(torch.rand(1, 3, 64, 64), isnet.JointLogits())
    every = explain(torch.rand(1, 3, 64, 64), isnet.EveryLogit()).relevance
    assert every.shape == (1, 2 * CLASSES, 3, 64, 64)


def test_the_zb_rule_needs_a_layer_at_the_image():
    with pytest.raises(isnet.UnsupportedNetworkError, match="input_rule='epsilon'"):
        map_of(lambda net, x: net.conv(x.relu()))
    assert bool(map_of(lambda net, x: net.conv(x.relu()), input_rule="epsilon").isfinite().all())
