"""Methods that use masks in other ways than the ISNets, on networks and images small enough to work out by hand."""

import math

import pytest
import torch
from hand_worked import CERTAIN, Linear, check, pixels, task_of
from small_networks import randomise
from torch import nn

from baselines import (
    activation_difference,
    background_swap,
    backgrounds,
    cdep,
    energy_loss,
    ibp_ex,
    lrp_distillation,
    masked_training,
    pgd_ex,
    random_background,
)
from isnet_bench import methods
from isnet_bench.methods import backbones

UNMASKED = [math.nan, math.nan]
IDENTITY = [[1.0, 0.0], [0.0, 1.0]]


def build(module, network, **hyperparameters):
    """Build a method in evaluation mode, where it draws the same numbers every time."""
    return module.METHOD.build(task_of(network), module.Hyperparameters(**hyperparameters)).eval()


def coloured(number=3, side=8):
    """Random images of three channels, whose foregrounds are squares of different sizes."""
    images = torch.rand(number, 3, side, side, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(number, 1, side, side)
    for index, mask in enumerate(masks):
        mask[:, 1 : 3 + index, 2:5] = 1
    return images, masks


# --- other backgrounds --------------------------------------------------------------------------------------


def test_the_hole_of_a_background_has_its_mean_colour():
    filled = backgrounds.filled(pixels([9.0, 1.0], [3.0, 9.0]), pixels([1.0, 0.0], [0.0, 1.0]))
    assert filled.tolist() == [[[[2.0, 1.0], [3.0, 2.0]]]]
    nothing_but_foreground = backgrounds.filled(pixels([9.0, 1.0]), pixels([1.0, 1.0]))
    assert nothing_but_foreground.tolist() == [[[[0.0, 0.0]]]]


@pytest.mark.parametrize("seed", range(4))
def test_swap_takes_the_background_of_another_image_and_keeps_the_foreground(seed):
    images, masks = coloured()
    torch.manual_seed(seed)
    swapped, filled = backgrounds.swap(images, masks), backgrounds.filled(images, masks)
    inside = masks.bool().expand_as(images)
    assert torch.equal(swapped[inside], images[inside])
    sources = [
        [torch.equal(new[~where], other[~where]) for other in filled]
        for new, where in zip(swapped, inside, strict=True)
    ]
    assert [sum(found) for found in sources] == [1, 1, 1]
    assert not any(found[index] for index, found in enumerate(sources))


def test_shuffled_pixels_stay_in_their_background_and_keep_their_colour():
    images, masks = coloured()
    shuffled = backgrounds.shuffled(images, masks, torch.Generator().manual_seed(0))
    inside = masks.bool().expand_as(images)
    assert torch.equal(shuffled[inside], images[inside])
    for new, old, mask in zip(shuffled, images, masks[:, 0] < 0.5, strict=True):
        new, old = (sorted(image[:, mask].T.tolist()) for image in (new, old))
        assert new == old
    assert not torch.equal(shuffled, images)


def test_shuffled_patches_are_those_of_the_image():
    images = torch.arange(2.0 * 3 * 4 * 4).view(2, 3, 4, 4)
    shuffled = random_background.shuffled_patches(images, 2, torch.Generator().manual_seed(0))
    for new, old in zip(shuffled, images, strict=True):
        new, old = (
            sorted(image.unfold(1, 2, 2).unfold(2, 2, 2)[0].flatten(2).flatten(0, 1).tolist()) for image in (new, old)
        )
        assert new == old
    assert not torch.equal(shuffled, images)


def test_background_swap_classifies_swapped_images():
    module = build(background_swap, Linear(IDENTITY), masked_weight=0.25)
    images = torch.cat([pixels([CERTAIN, 2 * CERTAIN]), pixels([0.0, CERTAIN]), pixels([0.0, 0.0])])
    masks = torch.cat([pixels([1.0, 0.0]), pixels([0.0, 1.0]), pixels(UNMASKED)])
    # Seen are (ln 3, 0), whose label 0 has the probability 3/4, and (2 ln 3, ln 3), whose label 1 has 1/4.
    swapped = (-math.log(3 / 4) - math.log(1 / 4)) / 2
    losses = module.training_loss(images[:2], masks[:2], torch.tensor([0, 1]))
    check(losses, swapped, classification=swapped)
    # The third image has no mask and stays as it is: ln 2.
    mixed = 0.25 * swapped + 0.75 * math.log(2)
    check(module.training_loss(images, masks, torch.tensor([0, 1, 0])), mixed, classification=mixed)
    alone = module.training_loss(images[2:], masks[2:], torch.tensor([0]))
    check(alone, math.log(2), classification=math.log(2))


@pytest.mark.parametrize("name", ["original_isnet", "dual_isnet", "selective_isnet"])
def test_an_isnet_on_swapped_backgrounds_sees_and_explains_those(name):
    method, network = methods.get(name), two_layers()
    images = torch.cat([pixels([0.8, 0.2]), pixels([0.4, 0.6]), pixels([0.1, 0.9])])
    masks = torch.cat([pixels([1.0, 0.0]), pixels([0.0, 1.0]), pixels(UNMASKED)])
    # The third image has no mask and stays as it is.
    swapped = torch.cat([pixels([0.8, 0.4]), pixels([0.2, 0.6]), images[2:]])
    c = {"c1": 0.1, "c2": 0.5}
    found, plain = (
        method.build(task_of(network), method.hyperparameters(background_swap=swap, **c)).eval()
        for swap in (True, False)
    )
    labels = torch.tensor([0, 1, 1])
    losses, expected, other = (
        module.training_loss(seen, masks, labels)
        for module, seen in ((found, images), (plain, swapped), (plain, images))
    )
    assert losses.parts["heatmap"].item() > 0
    check(losses, expected.total.item(), **{part: value.item() for part, value in expected.parts.items()})
    assert losses.total.item() != pytest.approx(other.total.item(), abs=1e-4)
    assert method.trained(found) is network


@pytest.mark.parametrize(("probability", "loss"), [(1.0, -math.log(3 / 4)), (0.0, math.log(2))])
def test_masked_training_erases_the_background_of_some_images(probability, loss):
    module = build(masked_training, Linear(IDENTITY), probability=probability)
    losses = module.training_loss(pixels([CERTAIN, CERTAIN]), pixels([1.0, 0.0]), torch.tensor([0]))
    check(losses, loss, classification=loss)


def test_masked_training_erases_as_often_as_it_says():
    module = build(masked_training, Linear(IDENTITY), probability=0.3).train()
    torch.manual_seed(0)
    changed = module.change(torch.ones(4000, 1, 1, 2), torch.tensor([1.0, 0.0]).expand(4000, 1, 1, 2), None)
    assert changed[..., 0].min() == 1
    assert changed[..., 1].mean().item() == pytest.approx(0.7, abs=0.03)


@pytest.mark.parametrize(("fill", "distinct"), [("noise", 1 - 9 / 64), ("color", 1 / 64)])
def test_random_backgrounds(fill, distinct):
    images, masks = coloured()
    module = build(random_background, nn.Identity(), fill=fill)
    changed = module.change(images, masks, torch.Generator().manual_seed(0))
    inside = masks.bool().expand_as(images)
    assert torch.equal(changed[inside], images[inside])
    outside = changed[1][~inside[1]].view(3, -1)
    assert {len(channel.unique()) for channel in outside} == {round(64 * distinct)}
    assert bool(((outside >= 0) & (outside <= 1)).all())


def test_patches_must_fit_the_image():
    images, masks = coloured()
    with pytest.raises(ValueError, match=r"patch must divide the image's side 2, not be 4"):
        build(random_background, nn.Identity(), fill="patches")
    changed = build(random_background, nn.Identity(), fill="patches", patch=2).change(images, masks, None)
    inside = masks.bool().expand_as(images)
    assert torch.equal(changed[inside], images[inside])
    assert bool(torch.isin(changed[~inside], backgrounds.filled(images, masks)).all())


@pytest.mark.parametrize(
    "module", [activation_difference, background_swap, lrp_distillation, masked_training, random_background]
)
def test_validation_draws_the_same_each_time(module):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    method = build(module, network)
    images, labels = torch.rand(6, 1, 2, 2), torch.tensor([0, 1] * 3)
    masks = (torch.rand(6, 1, 2, 2) > 0.5).float()
    state = torch.get_rng_state()
    found = {method.training_loss(images, masks, labels).total.item() for _ in range(3)}
    assert len(found) == 1
    assert torch.equal(torch.get_rng_state(), state)
    assert len({method.train().training_loss(images, masks, labels).total.item() for _ in range(6)}) > 1


# --- ActDiff ------------------------------------------------------------------------------------------------


def test_activation_difference_is_the_distance_to_the_shuffled_image():
    module = build(activation_difference, Linear(IDENTITY), weight=2.0).train()
    images, labels = pixels([1.0, 4.0]), torch.tensor([1])
    classification = math.log(1 + math.exp(-3))
    # The last linear layer reads the two pixels: their exchange moves it by the diagonal of a square of side 3.
    found = set()
    for seed in range(8):
        torch.manual_seed(seed)
        losses = module.training_loss(images, pixels([0.0, 0.0]), labels)
        found.add(round(losses.parts["difference"].item(), 5))
        difference = losses.parts["difference"].item()
        check(losses, classification + 2 * difference, classification=classification, difference=difference)
    assert found == {0.0, round(3 * math.sqrt(2), 5)}
    # A single background pixel has nowhere to go.
    losses = module.training_loss(images, pixels([1.0, 0.0]), labels)
    check(losses, classification, classification=classification, difference=0.0)


def test_activations_can_be_those_that_any_module_reads():
    module = build(activation_difference, Linear([[2.0, 0.0], [0.0, 2.0]]), layer="0")
    assert module.layer == "0"
    assert build(activation_difference, Linear(IDENTITY)).layer == "1"
    with pytest.raises(ValueError, match="layer must name a module of the backbone, such as 0, 1, not '7'"):
        build(activation_difference, Linear(IDENTITY), layer="7")


# --- PGD-Ex -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mask", "pixel", "epsilon", "worst"),
    [
        # The logits are ln 3 (2 x_1 - x_2) and 0; the label's falls as x_2 grows.
        ([1.0, 0.0], 0.0, 1.0, 1.0),
        ([1.0, 0.0], 0.0, 0.5, 1.5),
        # A pixel is 1 at most.
        ([1.0, 0.0], 0.75, 0.5, 1.0),
        # Nothing may change, or everything.
        ([1.0, 1.0], 0.0, 1.0, 2.0),
        ([0.0, 0.0], 0.0, 0.25, 1.25),
    ],
)
def test_pgd_ex_finds_the_worst_background(mask, pixel, epsilon, worst):
    module = build(pgd_ex, Linear([[2 * CERTAIN, -CERTAIN], [0.0, 0.0]]), weight=2.0, epsilon=epsilon, steps=4)
    losses = module.training_loss(pixels([1.0, pixel]), pixels(mask), torch.tensor([0]))
    classification, adversarial = math.log(1 + 3 ** -(2 - pixel)), math.log(1 + 3**-worst)
    check(losses, classification + 2 * adversarial, classification=classification, worst=adversarial)


# --- energy loss --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "mask", "energy"),
    [
        # Contributions of the pixels to the true logit: (2, 3), then (2, -3), of which only 2 counts.
        ([1.0, 3.0], [1.0, 0.0], 3 / 5),
        ([1.0, 3.0], [0.0, 1.0], 2 / 5),
        ([1.0, -3.0], [1.0, 0.0], 0.0),
        ([-1.0, -3.0], [1.0, 0.0], 0.0),
    ],
)
def test_energy_loss_is_the_share_of_positive_contributions_outside(weights, mask, energy):
    module = build(energy_loss, Linear([weights, [0.0, 0.0]]), weight=3.0)
    losses = module.training_loss(pixels([2.0, 1.0]), pixels(mask), torch.tensor([0]))
    classification = math.log(1 + math.exp(-(2 * weights[0] + weights[1])))
    check(losses, classification + 3 * energy, classification=classification, energy=energy)


# --- LRP distillation ---------------------------------------------------------------------------------------


def two_layers():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2))


def test_distance_of_heatmaps():
    relevance, target = torch.tensor([[1.0, 0.0], [2.0, -2.0]]), torch.tensor([[0.0, 4.0], [2.0, 2.0]])
    # (1 + 4) / sqrt(1 * 4), and (0 + 4) / sqrt(4 * 4)
    assert lrp_distillation.heatmap_distance(relevance, target).item() == pytest.approx((5 / 2 + 1) / 2)


def test_a_map_without_relevance_has_no_distance_and_a_finite_gradient():
    relevance = torch.tensor([[1.0, 0.0], [3.0, 1.0], [0.0, 0.0]], requires_grad=True)
    target = torch.tensor([[0.0, 4.0], [0.0, 0.0], [1.0, 1.0]])
    distance = lrp_distillation.heatmap_distance(relevance, target)
    assert distance.item() == pytest.approx((5 / 2) / 3)
    gradient = torch.autograd.grad(distance, relevance)[0]
    # Of the first image: (|r| + |s - 4|) / sqrt(4 (|r| + |s|)) at r = 1; s at 0 has the slope -1 of the error alone.
    torch.testing.assert_close(gradient, torch.tensor([[1 / 2 - 5 / 4, -1 / 2], [0.0, 0.0], [0.0, 0.0]]) / 3)


def test_a_student_that_explains_like_its_teacher_has_no_distance():
    module = build(lrp_distillation, two_layers(), heatmap_weight=0.75)
    assert module.teacher is module.backbone
    images, labels = pixels([0.5, 0.25]), torch.tensor([1])
    classification = nn.functional.cross_entropy(module(images), labels).item()
    losses = module.training_loss(images, pixels([1.0, 1.0]), labels)
    check(losses, 1.25 * classification, classification=classification, heatmap=0.0, teacher=classification)


def test_the_teacher_sees_the_foreground_alone_and_learns_from_labels_alone():
    module = build(lrp_distillation, two_layers(), heatmap_weight=0.75)
    module.teacher = two_layers()
    module._teach = type(module._teach)(module.teacher)
    images, masks, labels = pixels([0.5, 1.0]), pixels([0.0, 1.0]), torch.tensor([1])
    losses = module.training_loss(images, masks, labels)
    expected = nn.functional.cross_entropy(module.teacher(pixels([0.0, 1.0])), labels)
    assert losses.parts["teacher"].item() == pytest.approx(expected.item())
    weights = module.teacher[1].weight
    found = torch.autograd.grad(losses.total, weights, retain_graph=True)[0]
    torch.testing.assert_close(found, torch.autograd.grad(expected, weights)[0])
    assert losses.parts["heatmap"].item() > 0
    assert torch.autograd.grad(losses.parts["heatmap"], module.backbone[1].weight)[0].any()


def test_heatmaps_of_layers_are_compared_too():
    module = build(lrp_distillation, two_layers(), layers=("2",), p_label=1.0)
    given = pixels([0.5, 0.25]), pixels([1.0, 0.0]), torch.tensor([1])
    # The relevance of the first layer's outputs a for the label is a_i W_1i, by the epsilon rule.
    outputs, weights = module.backbone[2], module.backbone[3].weight[1]
    first, second = (outputs(module.backbone[1](image.flatten(1))) for image in (given[0], given[0] * given[1]))
    inner = lrp_distillation.heatmap_distance(first * weights, second * weights).item()
    found = module.training_loss(*given).parts["heatmap"].item()
    alone = build(lrp_distillation, module.backbone, p_label=1.0).training_loss(*given).parts["heatmap"].item()
    assert found == pytest.approx((alone + inner) / 2, rel=1e-4)


def test_without_masks_the_student_is_an_ordinary_classifier():
    module = build(lrp_distillation, two_layers(), heatmap_weight=0.75)
    losses = module.training_loss(pixels([0.5, 0.25]), pixels(UNMASKED), torch.tensor([1]))
    classification = losses.parts["classification"].item()
    check(losses, 0.25 * classification, classification=classification, heatmap=0.0, teacher=0.0)


# --- CDEP ---------------------------------------------------------------------------------------------------


def linear(weight, bias=(0.0, 0.0)):
    """Logits W x + b of the two upper pixels of four."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    network[1].weight.data = torch.tensor(weight) @ torch.eye(2, 4)
    network[1].bias.data = torch.tensor(bias)
    return network


def test_cdep_compares_what_background_and_foreground_give_each_logit():
    module = build(cdep, linear([[1.0, 3.0], [-1.0, 2.0]], bias=(4.0, 0.0)), weight=2.0)
    losses = module.training_loss(pixels([1.0, 1.0], [0.0, 0.0]), pixels([1.0, 0.0], [0.0, 0.0]), torch.tensor([0]))
    # The first logit's bias goes 3 : 1 to background (3) and foreground (1): 6 and 2. The second has 2 and -1.
    background = (1 / (1 + math.exp(-4)) + 1 / (1 + math.exp(-3))) / 2
    classification = math.log(1 + math.exp(1 - 8))
    check(losses, classification + 2 * background, classification=classification, background=background)


def test_a_relu_gives_the_background_what_it_has_alone():
    streams = cdep.Decomposition(torch.tensor([3.0, -1.0, 2.0]), torch.tensor([-1.0, 3.0, -5.0])).relu()
    assert streams.first.tolist() == [3.0, 0.0, 2.0]
    assert streams.second.tolist() == [-1.0, 2.0, -2.0]


def test_max_pooling_follows_the_maxima_of_the_sum():
    streams = cdep.Decomposition(pixels([1.0, 2.0], [3.0, 0.0]), pixels([5.0, 2.0], [1.0, 0.0])).max_pool(2)
    assert (streams.first.item(), streams.second.item()) == (1.0, 5.0)


@pytest.mark.parametrize("name", ["resnet_small", "resnet18"])
def test_decompositions_add_up_to_the_logits(name):
    images, masks = coloured(side=32)
    network = randomise(backbones.create(name, 4, 3, 32), 0).eval()
    streams = cdep.Decomposition((1 - masks) * images, masks * images).through(network)
    torch.testing.assert_close(streams.first + streams.second, network(images))
    assert not network.training


# --- IBP-Ex -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("batches", "low"), [(0, 2.0), (1, 1.75), (4, 1.0), (9, 1.0)])
def test_ibp_ex_bounds_the_logits_over_all_backgrounds(batches, low):
    # The logits are ln 3 (2 x_1 - x_2) and 0, as for PGD-Ex; x_2 may grow by 1, reached after four batches.
    module = build(ibp_ex, linear([[2 * CERTAIN, -CERTAIN], [0.0, 0.0]]), weight=0.25, epsilon=1.0, warmup=4)
    module.batches += batches
    given = pixels([1.0, 0.0], [0.0, 0.0]), pixels([1.0, 0.0], [0.0, 0.0]), torch.tensor([0])
    classification, worst = math.log(1 + 3**-2), math.log(1 + 3**-low)
    check(
        module.training_loss(*given), 0.75 * classification + 0.25 * worst, classification=classification, worst=worst
    )
    assert module.batches == batches
    module.train().training_loss(*given)
    assert module.batches == batches + 1


@pytest.mark.parametrize("name", ["resnet_small", "resnet18"])
def test_no_image_leaves_its_bounds(name):
    images, masks = coloured(side=32)
    network = randomise(backbones.create(name, 4, 3, 32), 0).eval()
    bounds = ibp_ex.Interval(images, 0.02 * (1 - masks).expand_as(images)).through(network)
    for seed in range(20):
        noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(seed))
        logits = network(images + 0.02 * (1 - masks) * (2 * noise.round() - 1))
        assert bool(((logits - bounds.first).abs() <= bounds.second * 1.0001).all())


@pytest.mark.parametrize("module", [cdep, ibp_ex])
def test_operations_without_a_rule_are_errors(module):
    with pytest.raises(ValueError, match=r"has no rule for torch\.nn\.functional\.gelu"):
        build(module, nn.Sequential(nn.Flatten(), nn.GELU()))
    with pytest.raises(ValueError, match=r"has no rule for an operation of the backbone: .* 'ndim'"):
        module.METHOD.build(task_of(backbones.create("densenet121", 2, 1, 32), image_size=32), module.Hyperparameters())
