"""The baselines that bring a network of their own, with weights and images small enough to work out by hand."""

import math

import pytest
import torch
from torch import nn

import isnet
from baselines import ag_sononet, blocks, ham, multitask_unet, unet, unet_classifier, unet_swap, vit
from baselines.base import Task

LN2 = math.log(2)


def task_of(make_backbone=None, image_size=8, classes=2):
    return Task(make_backbone, classes=classes, channels=1, image_size=image_size)


def build(module, image_size=8, make_backbone=None, **hyperparameters):
    torch.manual_seed(0)
    method = module.METHOD
    return method.build(task_of(make_backbone, image_size), method.hyperparameters(**hyperparameters), None)


def row(*values):
    """Maps or images of one row, shape (1, 1, 1, W)."""
    return torch.tensor([[[list(values)]]])


def silence(*layers):
    """Make layers return 0, so that their logits are as undecided as can be."""
    for layer in layers:
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)


# --- building blocks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image_size", "side", "number"), [(28, 14, 1), (28, 7, 2), (224, 7, 5), (30, 7, 3), (8, 14, 0)]
)
def test_halvings(image_size, side, number):
    assert blocks.halvings(image_size, side) == number
    out = blocks.stem(1, 3, number)(torch.zeros(2, 1, image_size, image_size))
    assert out.shape[:2] == (2, 3)
    assert out.shape[2] <= max(side, image_size if number == 0 else side)


@pytest.mark.parametrize("image_size", [8, 28, 29, 31, 64])
def test_unet_returns_a_mask_of_any_size(image_size):
    network = unet.UNet(channels=3, image_size=image_size, width=2)
    images = torch.rand(2, 3, image_size, image_size)
    assert network(images).shape == (2, 1, image_size, image_size)
    maps = network.encode(images)
    assert [level.shape[1] for level in maps] == network.widths
    assert maps[-1].shape[-1] <= 7


def test_segmentation_loss():
    # p = (1/2, 1/2). Cross-entropy ln 2; Dice (2 * 1/2 + 1) / (1 + 1 + 1) = 2/3.
    undecided = unet.segmentation_loss(row(0.0, 0.0), row(1.0, 0.0))
    assert undecided.item() == pytest.approx(LN2 + 1 / 3)
    certain = unet.segmentation_loss(row(99.0, -99.0), row(1.0, 0.0))
    assert certain.item() == pytest.approx(0, abs=1e-6)
    wrong = unet.segmentation_loss(row(-99.0, 99.0), row(1.0, 0.0))
    assert wrong.item() == pytest.approx(99 + 2 / 3)


# --- segment, then classify ---------------------------------------------------------------------------------


class Scaled(nn.Module):
    """Mask logits: three times the image, less 4."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(3.0))

    def forward(self, images):
        return self.scale * images - 4


def pipeline(method=unet_classifier, **hyperparameters):
    def classifier():
        network = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
        network[1].weight.data = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
        return network

    module = build(method, make_backbone=classifier, **hyperparameters)
    module.segmenter = Scaled()
    return module


def test_the_classifier_sees_what_the_unet_finds():
    module, images = pipeline(), row(2.0, 1.0)
    # Mask logits (2, -1): the first pixel is foreground.
    assert module.visible_part(images).flatten().tolist() == [1.0, 0.0]
    assert module(images).tolist() == [[2.0, 0.0]]
    # sigmoid(-1) = 0.27
    assert pipeline(threshold=0.2)(images).tolist() == [[3.0, 0.0]]


@pytest.mark.parametrize(("training_masks", "logit"), [("predicted", 2.0), ("true", 1.0)])
def test_unet_classifier_loss(training_masks, logit):
    module = pipeline(training_masks=training_masks, segmentation_weight=5.0)
    images, masks = row(2.0, 1.0), row(0.0, 1.0)
    losses = module.training_loss(images, masks, torch.tensor([0]))
    classification = math.log(1 + math.exp(-logit))
    segmentation = unet.segmentation_loss(row(2.0, -1.0), masks).item()
    assert losses.parts["classification"].item() == pytest.approx(classification)
    assert losses.parts["segmentation"].item() == pytest.approx(segmentation)
    assert losses.total.item() == pytest.approx(classification + 5 * segmentation)
    losses.parts["classification"].backward()
    assert module.segmenter.scale.grad is None


def test_unet_swap_takes_true_masks_where_there_are_and_predicted_ones_elsewhere():
    module = pipeline(unet_swap, segmentation_weight=5.0).eval()
    images = torch.cat([row(2.0, 1.0), row(0.0, 3.0)])
    masks = torch.cat([row(math.nan, math.nan), row(1.0, 0.0)])
    # The U-Net's mask of the first image is (1, 0), as above. That of the second, (0, 1), gives way to the true one.
    # The backgrounds, filled, are (1, 1) and (3, 3), so that (2, 3) and (0, 1) are seen: logits (5, 0) and (1, 0).
    losses = module.training_loss(images, masks, torch.tensor([0, 1]))
    classification = (math.log(1 + math.exp(-5)) + math.log(1 + math.exp(1))) / 2
    segmentation = unet.segmentation_loss(row(-4.0, 5.0), row(1.0, 0.0)).item()
    assert losses.parts["classification"].item() == pytest.approx(classification)
    assert losses.parts["segmentation"].item() == pytest.approx(segmentation)
    assert losses.total.item() == pytest.approx(classification + 5 * segmentation)
    losses.parts["classification"].backward()
    assert module.segmenter.scale.grad is None
    # At run time nothing but the classifier is left.
    assert unet_swap.METHOD.trained(module) is module.backbone
    assert module(images).tolist() == [[3.0, 0.0], [3.0, 0.0]]


# --- multi-task U-Net ---------------------------------------------------------------------------------------


def test_multitask_unet_loss():
    module = build(multitask_unet, segmentation_weight=3.0)
    silence(module.head[-1], module.unet.head)
    images, masks = torch.rand(4, 1, 8, 8), torch.zeros(4, 1, 8, 8)
    masks[..., :4, :] = 1
    losses = module.training_loss(images, masks, torch.tensor([0, 1, 0, 1]))
    # p = 1/2 at 64 pixels, 32 of which are foreground: Dice (2 * 16 + 1) / (32 + 32 + 1) = 33/65.
    segmentation = LN2 + 32 / 65
    assert losses.parts["classification"].item() == pytest.approx(LN2)
    assert losses.parts["segmentation"].item() == pytest.approx(segmentation)
    assert losses.total.item() == pytest.approx(LN2 + 3 * segmentation)


def test_multitask_unet_classifies_without_its_decoder():
    module = build(multitask_unet).eval()
    images = torch.rand(2, 1, 8, 8)
    before = module(images)
    silence(module.unet.decoder, module.unet.head)
    assert torch.equal(module(images), before)


# --- attention-gated Sononet --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phi", "attention"),
    [
        # ReLU(x) = (1, 2, 3, 4), less the minimum: (0, 1, 2, 3), of 6
        (0.0, [0, 1 / 6, 2 / 6, 3 / 6]),
        # ReLU(x - 2) = (0, 0, 1, 2), of 3
        (1.0, [0, 0, 1 / 3, 2 / 3]),
    ],
)
def test_attention_gate(phi, attention):
    gate = ag_sononet.AttentionGate(1, 1, 1)
    for layer, weight in ((gate.theta, 1.0), (gate.phi, phi), (gate.psi, 1.0)):
        nn.init.constant_(layer.weight, weight)
    features, gating = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), torch.tensor([[[[-2.0]]]])
    assert gate.attention(features, gating).flatten().tolist() == pytest.approx(attention)
    pooled = sum(share * value for share, value in zip(attention, (1, 2, 3, 4), strict=True))
    assert gate(features, gating).item() == pytest.approx(pooled)


def test_attention_of_a_constant_map_is_finite():
    gate = ag_sononet.AttentionGate(1, 1, 1)
    assert gate(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 1, 1)).item() == 0


def test_ag_sononet_loss():
    module = build(ag_sononet, auxiliary_weight=0.1)
    silence(module.head, module.heads)
    images = torch.rand(4, 1, 8, 8)
    losses = module.training_loss(images, torch.ones_like(images), torch.tensor([0, 1, 0, 1]))
    # Three scales with a classifier each.
    assert losses.parts["classification"].item() == pytest.approx(LN2)
    assert losses.parts["auxiliary"].item() == pytest.approx(3 * LN2)
    assert losses.total.item() == pytest.approx(1.3 * LN2)


# --- Hierarchical Attention Mining --------------------------------------------------------------------------


def test_refined_attention():
    # Scaled to (0, 2/5, 1), then sigmoid(100 (a - 0.4)).
    attention = ham.refine(row(1.0, 3.0, 6.0), torch.Size([1, 3]))
    assert attention.flatten().tolist() == pytest.approx([0, 1 / 2, 1], abs=1e-4)
    assert bool(ham.refine(row(0.0, 0.0), torch.Size([4, 4])).isfinite().all())


def test_attention_mse():
    attention = torch.cat([row(1.0, 0.0), row(1.0, 0.0), row(0.0, 0.0)])
    masks = torch.cat([row(1.0, 1.0), row(1.0, 0.0), row(1.0, 0.0)])
    # Class 0: (1 + 0) / (3 + 2) = 1/5. Class 2: 1 / 1. Class 1 does not occur.
    assert ham.attention_mse(attention, torch.tensor([0, 0, 2]), masks).item() == pytest.approx((1 / 5 + 1) / 2)


def test_uncovered_attention():
    # Strong (above 0.75) at the first position only, where 1 of 2 is covered; 2 of all 2.5 count as attention.
    inner, outer = row(2.0, 0.5), row(1.0, 9.0)
    assert ham.uncovered(inner, outer).tolist() == pytest.approx([1.5 / 2.5])
    assert ham.uncovered(row(0.0, 0.0), outer).tolist() == [0.0]


def test_foreground_attention():
    block = ham.ForegroundAttention(8).eval()
    for layer in (block.position, block.mix, block.squeeze, block.spatial[0]):
        nn.init.zeros_(layer.weight)
    silence(block.excite)
    # Mixed to 4 in each channel, excited by 1/2, squeezed to their sum: 16. The spatial gate, too, is half open.
    nn.init.constant_(block.mix.weight, 0.5)
    nn.init.ones_(block.squeeze.weight)
    out = block(torch.ones(1, 8, 2, 2))
    torch.testing.assert_close(out, torch.full((1, 8, 2, 2), 1 + 0.1 * 16 / 2))


def test_ham_loss():
    module = build(ham, foreground_weight=0.1, mask_weight=0.2, bound_weight=0.3, union_weight=0.4).eval()
    maps = torch.zeros(1, 32, 7, 7)
    maps[:, 0, 0, 0] = 1
    module._maps = lambda images: maps
    nn.init.zeros_(module.foreground_score.weight)
    nn.init.zeros_(module.class_scores.weight)
    module.class_scores.weight.data[1, 0], module.foreground_score.weight.data[0, 0] = 2.0, 1.0
    masks = torch.zeros(1, 1, 7, 7)
    masks[..., 0, :2] = 1
    losses = module.training_loss(torch.zeros(1, 1, 7, 7), masks, torch.tensor([1]))
    parts = losses.parts
    # Log-sum-exp pooling of one 1 among 49 positions.
    pooled = math.log((48 + math.exp(6)) / 49) / 6
    assert parts["classification"].item() == pytest.approx(math.log(1 + math.exp(-2 * pooled)))
    assert parts["foreground"].item() == pytest.approx(math.log(1 + math.exp(-pooled)))
    # Attention is 1 at one of the mask's two pixels: 1 / (1 + 2). The class map is 2, the foreground map 1.
    assert parts["mask"].item() == pytest.approx(1 / 3, abs=1e-5)
    assert parts["bound"].item() == pytest.approx(1 / 2)
    assert parts["union"].item() == pytest.approx(0, abs=1e-5)
    weights = {"classification": 1, "foreground": 0.1, "mask": 0.2, "bound": 0.3, "union": 0.4}
    assert losses.total.item() == pytest.approx(sum(weight * parts[name].item() for name, weight in weights.items()))


def test_masks_of_ham_teach_the_maps_and_not_the_weights_with_which_classes_read_them():
    module = build(ham)
    images, masks = torch.rand(4, 1, 8, 8), torch.zeros(4, 1, 8, 8)
    masks[..., :4, :] = 1
    parts = module.training_loss(images, masks, torch.tensor([0, 1, 0, 1])).parts
    (parts["mask"] + parts["bound"] + parts["union"]).backward()
    assert module.class_scores.weight.grad is None
    assert module.foreground_score.weight.grad is None
    assert bool(module.join[0][0].weight.grad.any())


# --- Vision Transformer -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("image_size", "patch"), [(28, 4), (32, 4), (64, 8), (112, 16), (224, 16), (30, 3), (29, 1)])
def test_patches_divide_the_image(image_size, patch):
    assert vit.patch_size(image_size) == patch


def test_vit_is_a_transformer_under_cross_entropy():
    module = build(vit, image_size=28)
    assert module.backbone.patch_embed.num_patches == 49
    silence(module.backbone.head)
    images = torch.rand(4, 1, 28, 28)
    losses = module.training_loss(images, torch.ones_like(images), torch.tensor([0, 1, 0, 1]))
    assert losses.total.item() == losses.parts["classification"].item() == pytest.approx(LN2)
    with pytest.raises(ValueError, match="patch_size must divide the image size 28, not be 5"):
        build(vit, image_size=28, patch_size=5)


# --- what explains which network ----------------------------------------------------------------------------


@pytest.mark.parametrize("module", [ag_sononet, ham, vit])
def test_lrp_says_that_it_does_not_fit_attention(module):
    network = build(module, image_size=28).eval()
    with pytest.raises(isnet.UnsupportedNetworkError, match="no LRP rule for"):
        isnet.LRPFlex(network)(torch.rand(2, 1, 28, 28), isnet.Logit(0))


def test_lrp_fits_the_multitask_unet():
    network = build(multitask_unet, image_size=28).eval()
    images = torch.rand(2, 1, 28, 28)
    logits, relevance, _ = isnet.LRPFlex(network)(images, isnet.Logit(0))
    torch.testing.assert_close(logits, network(images))
    assert relevance.shape == (2, 1, 1, 28, 28)
