"""The baselines that train the benchmark's backbone, on networks and images small enough to work out by hand."""

import math

import pytest
import torch
from hand_worked import CERTAIN, Linear, check, pixels, task_of
from torch import nn

import isnet
from baselines import gain, gradcam, gradcam_loss, masked_input, resnet, rrr, softmax_grad_input
from baselines.base import NoHyperparameters, Task
from isnet_bench.methods import backbones


class Sum(nn.Module):
    """First logit: the sum of all pixels; second: 1. Grad-CAM of the first explains the pixels by themselves."""

    def __init__(self):
        super().__init__()
        self.features = nn.Conv2d(1, 1, 1, bias=False)
        nn.init.ones_(self.features.weight)

    def forward(self, images):
        total = self.features(images).sum((1, 2, 3))
        return torch.stack([total, torch.ones_like(total)], 1)


# --- plain classifier: class weights, which all methods take from the same place -----------------------------


def test_class_weights_are_those_of_a_weighted_mean():
    network = Linear([[1.0, 0.0], [0.0, 1.0]])
    module = resnet.METHOD.build(task_of(network, class_weights=torch.tensor([3.0, 1.0])), NoHyperparameters())
    # First image: logits (0, 0), class 0: ln 2, weight 3. Second: (ln 3, 0), class 1: -ln 1/4 = 2 ln 2, weight 1.
    images = torch.cat([pixels([0.0, 0.0]), pixels([CERTAIN, 0.0])])
    losses = module.training_loss(images, torch.ones_like(images), torch.tensor([0, 1]))
    check(losses, 5 / 4 * math.log(2), classification=5 / 4 * math.log(2))
    assert list(module.state_dict()) == ["backbone.1.weight"]


# --- Right for the Right Reasons ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mask", "reasons"),
    [
        # sum_k log p_k = z_1 + z_2 - 2 lse(z), whose derivative by x_d is W_1d + W_2d - 2 (3/4 W_1d + 1/4 W_2d):
        # 1 - 2 * 3/4 = -1/2 for the first pixel, 5 - 2 (3 + 1/4) = -3/2 for the second.
        ([1.0, 0.0], 9 / 4),
        ([0.0, 1.0], 1 / 4),
        ([0.0, 0.0], 10 / 4),
        ([1.0, 1.0], 0.0),
    ],
)
def test_rrr_squares_the_gradient_of_all_log_probabilities_on_the_background(mask, reasons):
    module = rrr.METHOD.build(task_of(Linear([[1.0, 4.0], [0.0, 1.0]])), rrr.Hyperparameters(weight=2.0), None)
    losses = module.training_loss(pixels([CERTAIN, 0.0]), pixels(mask), torch.tensor([0]))
    check(losses, -math.log(3 / 4) + 2 * reasons, classification=-math.log(3 / 4), reasons=reasons)


def test_rrr_averages_over_images_and_leaves_the_callers_images_alone():
    module = rrr.METHOD.build(task_of(Linear([[1.0, 4.0], [0.0, 1.0]])), rrr.Hyperparameters(), None)
    images = pixels([CERTAIN, 0.0]).repeat(2, 1, 1, 1)
    masks = torch.cat([pixels([1.0, 0.0]), pixels([1.0, 1.0])])
    assert module.training_loss(images, masks, torch.tensor([0, 0])).parts["reasons"].item() == pytest.approx(9 / 8)
    assert not images.requires_grad


# --- Grad-CAM -----------------------------------------------------------------------------------------------


def test_gradcam_weighs_maps_by_the_mean_gradient_and_keeps_what_speaks_for_the_class():
    network = nn.Sequential(nn.Conv2d(2, 2, 1, bias=False), nn.Flatten(), nn.Linear(4, 2, bias=False))
    network[0].weight.data = torch.eye(2)[:, :, None, None]
    # Gradients of logit 1 by the two maps: (1, 3), mean 2, and (-1, -1), mean -1.
    network[2].weight.data = torch.tensor([[9.0, 9.0, 9.0, 9.0], [1.0, 3.0, -1.0, -1.0]])
    images = torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]])
    logits, maps = gradcam.attention_maps(network, "0", images, torch.tensor([1]))
    # (2 * 1 - 1 * 3, 2 * 2 - 1 * 0) = (-1, 4)
    assert maps.tolist() == [[[[0.0, 4.0]]]]
    assert logits.tolist() == [[54.0, 4.0]]
    # Their sum, (v_1 + v_2) / 2 * 2 - ..., also moves the classifier's weights v: the map weights are no constants.
    maps.sum().backward()
    assert network[2].weight.grad[1].tolist() == [1.0, 1.0, 0.0, 0.0]


def test_gradcam_maps_have_the_size_of_the_images():
    network = nn.Sequential(nn.Conv2d(1, 3, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))
    _, maps = gradcam.attention_maps(network, "1", torch.rand(5, 1, 9, 11), torch.zeros(5, dtype=torch.int64))
    assert maps.shape == (5, 1, 9, 11)
    assert bool((maps >= 0).all())


@pytest.mark.parametrize(
    ("name", "image_size", "layer"),
    [
        ("resnet_small", 28, "layer1"),
        ("resnet18", 224, "layer4"),
        ("resnet_small", 16, "act1"),
    ],
)
def test_the_explained_layer_is_the_last_one_of_7_by_7(name, image_size, layer):
    network = backbones.create(name, 2, 1, image_size)
    assert gradcam.find_layer(network, task_of(None, image_size)) == layer
    assert network.training


def test_a_layer_can_be_named_and_must_exist():
    network = backbones.create("resnet_small", 2, 1, 28)
    assert gradcam.find_layer(network, task_of(None, 28), "layer2") == "layer2"
    for wrong in ("layer9", "fc", "global_pool.pool"):
        with pytest.raises(ValueError, match=f"layer must name a module with maps, such as .*layer3.*, not '{wrong}'"):
            gradcam.find_layer(network, task_of(None, 28), wrong)
    with pytest.raises(ValueError, match="Grad-CAM needs a network with two-dimensional maps"):
        gradcam.find_layer(Linear([[1.0, 1.0], [1.0, 1.0]]), Task(lambda: None, 2, 2, 1))


def test_background_share_is_a_share_of_each_image():
    maps = torch.cat([pixels([3.0, 1.0]), pixels([0.0, 0.0])])
    # 1 of 4, and nothing of nothing
    assert gradcam_loss.background_share(maps, pixels([1.0, 0.0])).item() == pytest.approx(1 / 8)


def test_gradcam_loss():
    module = gradcam_loss.METHOD.build(task_of(Sum()), gradcam_loss.Hyperparameters(weight=3.0), None)
    losses = module.training_loss(pixels([1.0, 0.0], [0.0, 2.0]), pixels([1.0, 0.0], [0.0, 0.0]), torch.tensor([0]))
    # Logits (3, 1); the Grad-CAM is the image itself, of which 2 of 3 lie on the background.
    classification = math.log(1 + math.exp(-2))
    check(losses, classification + 3 * 2 / 3, classification=classification, background=2 / 3)


# --- GAIN ---------------------------------------------------------------------------------------------------


def test_gain():
    hyperparameters = gain.Hyperparameters(mining_weight=2.0, mask_weight=4.0, slope=CERTAIN, threshold=1.0)
    module = gain.METHOD.build(task_of(Sum()), hyperparameters, None)
    images, masks = pixels([1.0, 0.0], [0.0, 2.0]), pixels([1.0, 0.0], [0.0, 1.0])
    losses = module.training_loss(images, masks, torch.tensor([0]))
    # The attention A is the image. T(A) = sigmoid(ln 3 (A - 1)) is 1/2 where A = 1, and 3/4 where A = 2, which
    # leaves 1/2 of each: logits (1, 1). A differs from the mask by 1 in one pixel of four.
    classification, mining = math.log(1 + math.exp(-2)), 1 / 2
    check(losses, classification + 2 * mining + 4 / 4, classification=classification, mining=mining, mask=1 / 4)


def test_gain_removes_what_attention_covers():
    left = gain.remaining_image(pixels([4.0, 4.0, 4.0]), pixels([0.5, 9.0, -9.0]), slope=10.0, threshold=0.5)
    assert left.flatten().tolist() == pytest.approx([2.0, 0.0, 4.0])


def test_gain_keeps_images_without_foreground_out_of_the_running_statistics():
    torch.manual_seed(0)
    module = gain.METHOD.build(task_of(backbones.create("resnet_small", 2, 1, 28), 28), gain.Hyperparameters(), None)
    plain = backbones.create("resnet_small", 2, 1, 28)
    plain.load_state_dict(module.backbone.state_dict())
    images = torch.rand(4, 1, 28, 28)
    module.train().training_loss(images, torch.ones(4, 1, 28, 28), torch.tensor([0, 1, 0, 1]))
    plain.train()(images)
    for name, value in plain.state_dict().items():
        if "running" in name:
            torch.testing.assert_close(module.backbone.state_dict()[name], value)
    assert {norm.momentum for norm in module.modules() if isinstance(norm, nn.BatchNorm2d)} == {0.1}


# --- Gradient x Input of the softmax ------------------------------------------------------------------------

IMAGE = (CERTAIN - 0.3, 0.1)
# z_1 - z_2 = x_1 + 3 x_2 = ln 3; dp_1/dx = p_1 p_2 (W_1 - W_2) = 3/16 (1, 3)
RELEVANCE = (3 / 16 * IMAGE[0], 9 / 16 * IMAGE[1])


def grad_input_network():
    return Linear([[1.0, 4.0], [0.0, 1.0]])


def test_softmax_gradient_times_input():
    logits, heatmaps = softmax_grad_input.explain(grad_input_network(), pixels(IMAGE))
    assert (logits[0, 0] - logits[0, 1]).item() == pytest.approx(CERTAIN)
    assert heatmaps.shape == (1, 1, 1, 1, 2)
    assert heatmaps.flatten().tolist() == pytest.approx(RELEVANCE)
    with torch.no_grad():
        totals = softmax_grad_input.METHOD.range.totals(None, grad_input_network(), pixels(IMAGE))
    assert list(totals) == ["input"]
    assert totals["input"].tolist() == [[pytest.approx(sum(RELEVANCE))]]


def test_softmax_grad_input_has_the_heatmap_loss_of_the_isnets():
    hyperparameters = softmax_grad_input.Hyperparameters(heatmap_weight=0.25, c1=0.1, c2=0.2, decay=1.0)
    module = softmax_grad_input.METHOD.build(task_of(grad_input_network()), hyperparameters, None)
    losses = module.training_loss(pixels(IMAGE), pixels([1.0, 0.0]), torch.tensor([0]))
    # The foreground's 0.1497 lies in [0.1, 0.2]. The background, relative to it and averaged over both pixels, is
    # squashed and held against 0: ln(1 + g).
    heatmap = math.log(1 + RELEVANCE[1] / RELEVANCE[0] / 2)
    classification = -math.log(3 / 4)
    check(losses, 0.75 * classification + 0.25 * heatmap, classification=classification, heatmap=heatmap)


def test_softmax_grad_input_takes_the_measured_range():
    method, defaults = softmax_grad_input.METHOD, softmax_grad_input.Hyperparameters()
    assert method.range.needed(defaults)
    assert not method.range.needed(method.hyperparameters(c1=0.1, c2=0.2))
    measured = {"input": [{"c1": 0.5, "c2": 2.0, "mean": 1.0}]}
    loss = method.build(task_of(grad_input_network()), defaults, measured).heatmap_loss
    assert isinstance(loss, isnet.HeatmapLoss)
    assert (loss.c1.item(), loss.c2.item()) == (0.5, 2.0)
    for nothing in (None, {}):
        with pytest.raises(ValueError, match="no relevance range at 'input' was measured"):
            method.build(task_of(grad_input_network()), defaults, nothing)


# --- oracle -------------------------------------------------------------------------------------------------


def test_masked_input_sees_the_foreground_only():
    module = masked_input.METHOD.build(task_of(Linear([[1.0, 1.0], [0.0, 0.0]])), NoHyperparameters())
    images, masks = pixels([CERTAIN, 5.0]), pixels([1.0, 0.0])
    assert masked_input.METHOD.oracle
    assert module(images, masks).flatten().tolist() == pytest.approx([CERTAIN, 0.0])
    assert module(images).flatten().tolist() == pytest.approx([CERTAIN + 5, 0.0])
    assert module(images, torch.full_like(masks, math.nan)).flatten().tolist() == pytest.approx([CERTAIN + 5, 0.0])
    classification = -math.log(3 / 4)
    check(module.training_loss(images, masks, torch.tensor([0])), classification, classification=classification)
    assert "oracle" in masked_input.METHOD.label
