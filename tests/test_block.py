"""LRP-Block against the reference numbers and against rules written out by hand."""

import numpy as np
import pytest
import torch
from reference_networks import build_network, heatmap_loss, load_fixture, tensor, variants
from small_networks import difference, make, pixels, zennit_map
from torch import nn
from torch.nn import functional as F

import isnet
from isnet.rules import Rule

FILES = ("d_block_seq_plain", "d_block_seq_nopool", "d_block_seq_bn", "d_block_resnet")
STAGES = ("layer1", "layer2", "layer3", "layer4")
QUANTITIES = {"e_all": isnet.EveryLogit(), "dual": isnet.JointLogits(), "e_selective": isnet.SoftmaxEta()}


def engine(network, mode, **options):
    rules = ("zplus", "epsilon") if mode == "dual" else ("epsilon",)
    return isnet.LRPBlock(network, rules=rules, **options)


def overwriting_max_pool(rule, a, pooled, indices, relevance):
    """The authors' max pool: of all windows with the same maximum, only the last one's relevance survives."""
    s = relevance / torch.where(pooled >= 0, pooled + rule.epsilon, pooled - rule.epsilon)
    maps = [torch.ops.aten.max_unpool2d(one, indices, a.shape[2:]) for one in s]
    return a * torch.stack(maps)


def reference_heatmaps(kind):
    return [(name, key) for name in FILES for key in load_fixture(name)[0] if key.startswith(f"{kind}/")]


def heatmap(name, key, layers=()):
    kind, mode, *rest = key.removesuffix("/f64").split("/")
    arrays, meta = load_fixture(name)
    dtype = torch.float64 if key.endswith("/f64") else torch.float32
    network = build_network(meta, arrays, dtype=dtype).train(kind == "block_train")
    epsilon = next(float(part[1:]) for part in rest if part.startswith("e0"))
    input_rule = "epsilon" if "Zb0" in rest else "zb"
    explain = engine(network, mode, epsilon=epsilon, input_rule=input_rule, layers=layers)
    with torch.no_grad():
        logits, relevance, at_layers = explain(tensor(arrays, "x", dtype), QUANTITIES[mode])
    expected_logits = tensor(arrays, "logits_train" if kind == "block_train" else "logits_eval", dtype)
    assert difference(logits, expected_logits) < 1e-5
    return at_layers if layers else relevance, tensor(arrays, key, dtype)


@pytest.mark.parametrize(("name", "key"), reference_heatmaps("block") + reference_heatmaps("block_train"))
def test_heatmaps_are_the_references(name, key, monkeypatch):
    if name == "d_block_resnet":
        monkeypatch.setattr(Rule, "max_pool", overwriting_max_pool)
    tolerance = 1e-10 if key.endswith("/f64") else 1e-4 if key.startswith("block_train") else 1e-5
    assert difference(*heatmap(name, key)) < tolerance


@pytest.mark.parametrize(("name", "key"), reference_heatmaps("block_lds"))
def test_relevance_at_layers_is_the_references(name, key):
    layers, expected = heatmap(name, key, layers=STAGES)
    assert tuple(layers) == STAGES
    assert difference(layers[key.rpartition("/")[2]], expected) < 1e-5


@pytest.mark.parametrize(("name", "variant"), variants("block"))
def test_gradients_of_the_heatmap_loss_are_the_references(name, variant, monkeypatch):
    if name == "f_grad_resnet":
        monkeypatch.setattr(Rule, "max_pool", overwriting_max_pool)
    arrays, meta = load_fixture(name)
    network = build_network(meta, arrays).train(variant["bn_train"])
    stored = {key.removeprefix(f"{variant['id']}/"): tensor(arrays, key) for key in arrays}
    input_rule = "zb" if variant["Zb"] else "epsilon"
    explain = engine(network, variant["mode"], epsilon=variant["e"], input_rule=input_rule)
    logits, relevance, _ = explain(tensor(arrays, "x"), QUANTITIES[variant["mode"]])
    assert difference(relevance, stored["heatmap"]) < 1e-4
    heat = heatmap_loss(variant)(relevance, tensor(arrays, "mask"))
    total = (1 - variant["P"]) * F.cross_entropy(logits, tensor(arrays, "y")) + variant["P"] * heat
    assert difference(total, stored["loss"]) < 1e-4
    total.backward()
    expected = {name: stored[f"grad/{name}"] for name, _ in network.named_parameters()}
    # A bias before a batch norm in training mode has no influence: the references hold rounding errors there.
    noise = 1e-5 * max(gradient.abs().max().item() for gradient in expected.values())
    for name, parameter in network.named_parameters():
        tolerance = max(1e-3 * expected[name].abs().max().item(), noise)
        torch.testing.assert_close(parameter.grad, expected[name], rtol=0, atol=tolerance, msg=name)


# Rules by hand. The network: a = (1, 2), hidden h = relu(W a + b), one logit y = v h + c.
W, B = [[1.0, -1.0], [0.5, 1.0]], [2.0, -0.5]
V, C = [[2.0, -1.0]], [0.25]


def by_hand():
    network = nn.Sequential(nn.Flatten(), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)).double()
    for parameter, values in zip(network.parameters(), (W, B, V, C), strict=True):
        parameter.data.copy_(torch.tensor(values))
    return network, torch.tensor([[[[1.0, 2.0]]]], dtype=torch.float64)


def explain_by_hand(rule, input_rule):
    network, image = by_hand()
    explain = isnet.LRPBlock(network, rules=(rule,), epsilon=0.1, input_rule=input_rule)
    return explain(image, isnet.JointLogits()).relevance.flatten().detach().numpy()


# h = (1*1 - 1*2 + 2, 0.5*1 + 1*2 - 0.5) = (1, 2); y = 2*1 - 1*2 + 0.25 = 0.25.
R_HIDDEN = np.array([2 * 1, -1 * 2]) * 0.25 / (0.25 + 0.1)
S = R_HIDDEN / np.array([1.1, 2.1])
# z-plus: the virtual output is 2*1 + 0.25 = 2.25; only h_1 gets a share.
R_POSITIVE = np.array([2 * 1, 0]) * 2.25 / (2.25 + 0.1)
S_POSITIVE = R_POSITIVE / np.array([1 * 1 + 2 + 0.1, 0.5 * 1 + 1 * 2 + 0.1])
# z^B on [0, 1]: z_k = sum w a - sum of the negative w + max(b, 0) = (1 - 2 + 1 + 2, 0.5 + 2) = (2, 2.5).
S_ZB = R_HIDDEN / np.array([2.1, 2.6])


@pytest.mark.parametrize(
    ("rule", "input_rule", "expected"),
    [
        ("epsilon", "epsilon", [1 * (1 * S[0] + 0.5 * S[1]), 2 * (-1 * S[0] + 1 * S[1])]),
        ("zplus", "epsilon", [1 * (1 * S_POSITIVE[0] + 0.5 * S_POSITIVE[1]), 2 * (1 * S_POSITIVE[1])]),
        ("epsilon", "zb", [1 * (1 * S_ZB[0] + 0.5 * S_ZB[1]), 2 * (-1 * S_ZB[0] + 1 * S_ZB[1]) - 1 * (-1 * S_ZB[0])]),
    ],
)
def test_two_layers_by_hand(rule, input_rule, expected):
    np.testing.assert_allclose(explain_by_hand(rule, input_rule), expected, rtol=1e-12)


def test_z_plus_of_negative_inputs_takes_negative_weights():
    network, _ = by_hand()
    image = torch.tensor([[[[-1.0, 2.0]]]], dtype=torch.float64)
    explain = isnet.LRPBlock(network, rules=("zplus",), epsilon=0.1, input_rule="epsilon")
    relevance = explain(image, isnet.JointLogits()).relevance.flatten().tolist()
    # h = (0, 1); z+ of the hidden layer = (2, 2); of the output 0.25, in which no hidden unit has a part.
    assert relevance == [0.0, 0.0]
    network[3].weight.data.fill_(1.0)
    relevance = explain(image, isnet.JointLogits()).relevance.flatten().tolist()
    # Now z+ of the output is 1.25; h_2's share is sent to a_2, for which alone w a > 0.
    np.testing.assert_allclose(relevance, [0.0, 2 * 1 * (1.25 / 1.35) / (2 + 0.1)], rtol=1e-12)


def test_general_input_range_of_the_zb_rule():
    network, image = by_hand()
    explain = isnet.LRPBlock(network, rules=("epsilon",), epsilon=0.1, low=-1.0, high=3.0)
    z = np.array([1 - 2 + 2 - 3 * (-1) + 1 * 1, 0.5 + 2 + 1 * (0.5 + 1)])
    s = R_HIDDEN / (z + 0.1)
    expected = [1 * (s[0] + 0.5 * s[1]) + 1 * (s[0] + 0.5 * s[1]), 2 * (-s[0] + s[1]) - 3 * (-s[0]) + 1 * s[1]]
    relevance = explain(image, isnet.JointLogits()).relevance.flatten().detach()
    np.testing.assert_allclose(relevance, expected, rtol=1e-12)


class Stage(nn.Module):
    """One function between an image and its sum (all weights 1, no biases)."""

    def __init__(self, function, features):
        super().__init__()
        self.function = function
        self.readout = nn.Linear(features, 1, bias=False, dtype=torch.float64)
        nn.init.ones_(self.readout.weight)

    def forward(self, x):
        return self.readout(self.function(x).flatten(1))


def stage_relevance(function, image, features, rule="epsilon"):
    explain = isnet.LRPBlock(Stage(function, features), rules=(rule,), epsilon=0.1, input_rule="epsilon")
    return explain(image, isnet.JointLogits()).relevance[0, 0].detach().numpy()


IMAGE = torch.tensor([[[[1.0, 4.0, 2.0, 3.0, 0.5]]]], dtype=torch.float64)


def test_overlapping_windows_of_a_max_pool_accumulate():
    # Windows of 3 at stride 1 have maxima 4, 4, 3; their sum is 11.
    relevance = stage_relevance(lambda x: F.max_pool2d(x, (1, 3), 1), IMAGE, 3)
    out = 11 / 11.1
    expected = [0, 2 * out * 4 * 4 / 4.1, 0, out * 3 * 3 / 3.1, 0]
    np.testing.assert_allclose(relevance.flatten(), expected, rtol=1e-12)


def test_average_pools_are_layers_with_equal_weights():
    # Windows (1, 4) and (2, 3) of the first four pixels; the fifth is in none.
    expected = [out * a / 2 for out, a in zip((2.5 / 2.6,) * 2 + (2.5 / 2.6,) * 2, (1, 4, 2, 3), strict=True)]
    expected = np.array([*expected, 0]) * 5 / 5.1
    relevance = stage_relevance(lambda x: F.avg_pool2d(x, (1, 2)), IMAGE, 2)
    np.testing.assert_allclose(relevance.flatten(), expected, rtol=1e-12)


@pytest.mark.parametrize(
    "average",
    [
        lambda x: F.adaptive_avg_pool2d(x, 1),
        lambda x: x.mean((2, 3)),
        lambda x: x.mean(-1, keepdim=True),
        lambda x: F.avg_pool2d(x, (1, 5)),
    ],
)
def test_all_ways_to_average_agree(average):
    relevance = stage_relevance(average, IMAGE, 1)
    np.testing.assert_allclose(relevance.flatten(), IMAGE.flatten() / 5 * (2.1 / 2.2) ** 2, rtol=1e-12)


@pytest.mark.parametrize(("rule", "shares"), [("epsilon", [-1 / 1.1, 2 / 1.1]), ("zplus", [0.0, 2 / 2.1])])
def test_a_sum_is_split_in_proportion_to_its_terms(rule, shares):
    image = torch.tensor([[[[-1.0]], [[2.0]]]], dtype=torch.float64)
    relevance = stage_relevance(lambda x: x[:, :1] + x[:, 1:], image, 1, rule)
    np.testing.assert_allclose(relevance.flatten(), np.array(shares) * 1 / 1.1, rtol=1e-12)


def test_a_batch_norm_of_its_own_is_an_affine_layer():
    # 0.5 x + 1 on a rectified activation: relevance x 0.5 R / (0.5 x + 1 + e).
    norm = nn.BatchNorm2d(1, eps=0.0, dtype=torch.float64).eval()
    norm.weight.data.fill_(0.5)
    norm.bias.data.fill_(1.0)
    relevance = stage_relevance(lambda x: norm(x.relu()), IMAGE, 5)
    z = 0.5 * IMAGE.flatten() + 1
    expected = 0.5 * IMAGE.flatten() * z / (z + 0.1) * z.sum() / (z.sum() + 0.1)
    np.testing.assert_allclose(relevance.flatten(), expected, rtol=1e-12)


class Branches(nn.Module):
    """Without biases: strided, grouped, dilated convolutions, overlapping pools, a sum, a concatenation."""

    def __init__(self):
        super().__init__()
        options = {"bias": False, "dtype": torch.float64}
        self.stem = nn.Conv2d(3, 6, 3, stride=2, padding=1, **options)
        self.left = nn.Conv2d(6, 6, 3, padding=1, groups=2, **options)
        self.right = nn.Conv2d(6, 4, 3, padding=2, dilation=2, **options)
        self.head = nn.Linear(10, 3, **options)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.stem(x)), 3, 2, 1)
        x = torch.cat([F.relu(x + self.left(x)), F.relu(self.right(x))], 1)
        return self.head(F.avg_pool2d(x, 3, 2, 1).mean((2, 3)))


def branches():
    torch.manual_seed(1)
    return Branches(), torch.rand(2, 3, 17, 14, dtype=torch.float64)


@pytest.mark.parametrize("input_rule", ["epsilon", "zb"])
def test_relevance_is_conserved_without_biases_as_epsilon_vanishes(input_rule):
    network, images = branches()
    explain = isnet.LRPBlock(network, epsilon=1e-12, input_rule=input_rule, layers=("stem", "head"))
    logits, relevance, layers = explain(images, isnet.JointLogits())
    zplus, epsilon = relevance.sum((2, 3, 4)).unbind(1)
    # Padding takes part in average pools but has no relevance to give back: it contributes 0.
    torch.testing.assert_close(epsilon, logits.sum(1), rtol=1e-7, atol=0)
    torch.testing.assert_close(zplus, layers["head"][:, 0].sum(1), rtol=1e-7, atol=0)
    torch.testing.assert_close(layers["stem"].sum((2, 3, 4)), relevance.sum((2, 3, 4)), rtol=1e-7, atol=0)
    assert bool((relevance[:, 0] >= 0).all())


@pytest.mark.parametrize("rule", ["epsilon", "zplus"])
@pytest.mark.parametrize("input_rule", ["epsilon", "zb"])
def test_derivatives_of_heatmaps_are_those_of_finite_differences(rule, input_rule):
    network, images = branches()
    cotangent = torch.rand(2, 1, 3, 17, 14, dtype=torch.float64)
    parameters = dict(network.named_parameters())

    def loss(*weights):
        for name, weight in zip(parameters, weights, strict=True):
            module, _, attribute = name.rpartition(".")
            owner = network.get_submodule(module)
            owner._parameters[attribute] = weight
        explain = isnet.LRPBlock(network, rules=(rule,), epsilon=0.1, input_rule=input_rule)
        return (explain(images, isnet.JointLogits()).relevance * cotangent).sum()

    assert torch.autograd.gradcheck(loss, tuple(parameters.values()), fast_mode=True)


@pytest.mark.parametrize("label", [0, 2])
def test_epsilon_maps_of_a_sequential_network_are_zennits(label):
    torch.manual_seed(2)
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 6 * 6, 10),
        nn.ReLU(),
        nn.Linear(10, 3),
    ).double()
    images = torch.rand(2, 3, 13, 13, dtype=torch.float64)
    explain = isnet.LRPBlock(network, rules=("epsilon",), epsilon=1e-2, input_rule="epsilon")
    assert (
        difference(explain(images, isnet.Logit(label)).relevance[:, 0], zennit_map(network, images, label, 1e-2))
        < 1e-12
    )


def test_relevance_inside_a_fused_layer_is_that_of_its_batch_norm():
    network, images = make("residual"), pixels(1, 3, 12, 12)
    layers = isnet.LRPBlock(network, layers=("3.main.0", "3.main.1"))(images, isnet.JointLogits()).layers
    assert difference(layers["3.main.0"], layers["3.main.1"]) == 0
