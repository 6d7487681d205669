"""Methods that look at groups, on networks and images small enough to work out by hand."""

import dataclasses
import math

import pytest
import torch
from hand_worked import CERTAIN, Linear, check, task_of

from baselines import group_dro, jtt

# Logits x_0 ln 3 and x_1 ln 3: of label 0, the image (1, 0) has the probability 3/4, (0, 1) has 1/4, (0, 0) has 1/2.
IMAGES = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]])[:, None, None]
LABELS = torch.tensor([0, 0, 0, 1])
GROUPS = torch.tensor([0, 0, 1, 3])
# Mean cross-entropies of the groups in the batch; number 2 is not there.
LOSSES = [(math.log(4 / 3) + math.log(4)) / 2, math.log(2), 0.0, math.log(2)]
PLAIN = (math.log(4 / 3) + math.log(4) + 2 * math.log(2)) / 4
MASKS = torch.full((4, 1, 1, 2), torch.nan)
GIVEN = IMAGES, MASKS, LABELS, GROUPS


def dro(class_weights=None, **hyperparameters):
    task = task_of(Linear([[CERTAIN, 0.0], [0.0, CERTAIN]]), class_weights=class_weights)
    task = dataclasses.replace(task, group_images={"a": 4, "b": 1, "c": 16, "d": 100})
    return group_dro.METHOD.build(task, group_dro.Hyperparameters(**hyperparameters))


@pytest.mark.parametrize("adjustment", [0.0, 2.0])
def test_group_dro_multiplies_the_weights_of_the_groups_that_it_sees(adjustment):
    module = dro(step_size=0.5, adjustment=adjustment)
    raised = [
        math.exp(0.5 * (loss + adjustment / math.sqrt(images)))
        for loss, images in zip(LOSSES, (4, 1, 16, 100), strict=True)
    ]
    raised[2] = 1.0
    first = [value / sum(raised) for value in raised]
    total = sum(weight * loss for weight, loss in zip(first, LOSSES, strict=True))
    check(module.train().training_loss(*GIVEN), total, classification=PLAIN)
    assert module.group_weights.tolist() == pytest.approx(first)
    # A second step goes on from there.
    module.training_loss(*GIVEN)
    second = [weight * value for weight, value in zip(first, raised, strict=True)]
    assert module.group_weights.tolist() == pytest.approx([weight / sum(second) for weight in second])


def test_group_dro_keeps_its_weights_in_validation():
    module = dro(step_size=0.5).eval()
    check(module.training_loss(*GIVEN), sum(LOSSES) / 4, classification=PLAIN)
    assert module.group_weights.tolist() == [0.25] * 4


def test_class_weights_count_within_a_group():
    module = dro(class_weights=torch.tensor([3.0, 1.0])).eval()
    weighted = (3 * LOSSES[0] + 3 * LOSSES[1] + LOSSES[3]) / 4
    assert module.training_loss(*GIVEN).total.item() == pytest.approx(weighted)


def test_no_gradient_passes_to_the_weights_of_the_groups():
    module = dro(step_size=0.5).train()
    total = module.training_loss(*GIVEN).total
    (found,) = torch.autograd.grad(total, module.backbone[1].weight)
    constant = module.eval().training_loss(*GIVEN).total
    torch.testing.assert_close(found, torch.autograd.grad(constant, module.backbone[1].weight)[0])


# --- just train twice ---------------------------------------------------------------------------------------


class Counting(Linear):
    """A linear classifier that counts how often it is asked in training."""

    asked = 0

    def forward(self, images):
        self.asked += self.training
        return super().forward(images)


def twice(weight=((CERTAIN, 0.0), (0.0, CERTAIN)), **hyperparameters):
    networks = iter([Counting([[CERTAIN, 0.0], [0.0, CERTAIN]]), Counting([list(row) for row in weight])])
    task = dataclasses.replace(task_of(None), make_backbone=lambda: next(networks), group_images={"a": 3, "b": 5})
    return jtt.METHOD.build(task, jtt.Hyperparameters(**hyperparameters)).train()


def test_the_first_epochs_train_the_other_classifier_alone():
    module = twice(((0.0, 0.0), (0.0, 0.0)), identification_epochs=2)
    for _ in range(4):
        # Four times four images are the two epochs of eight.
        losses = module.training_loss(*GIVEN)
        check(losses, math.log(2), classification=PLAIN)
        losses.total.backward()
        assert module.backbone[1].weight.grad is None
        assert module.identifier[1].weight.grad.any()
        module.zero_grad()
    losses = module.training_loss(*GIVEN)
    losses.total.backward()
    assert module.backbone[1].weight.grad.any()
    assert module.identifier[1].weight.grad is None
    assert module.identifier.asked == 4


def test_errors_of_the_first_classifier_count_more():
    module = twice(upweight=5.0)
    module.seen += 8
    # The first classifier takes the second image for the other class; of equal logits it names class 0.
    ours = [math.log(4 / 3), math.log(4), math.log(2), math.log(2)]
    total = sum(weight * loss for weight, loss in zip((1, 5, 1, 5), ours, strict=True)) / 4
    check(module.training_loss(*GIVEN), total, classification=PLAIN)
    assert module.seen == 12


def test_validation_counts_no_images_and_measures_the_second_classifier():
    module = twice(((0.0, 0.0), (0.0, 0.0)), upweight=5.0).eval()
    ours = [math.log(4 / 3), math.log(4), math.log(2), math.log(2)]
    total = sum(weight * loss for weight, loss in zip((1, 1, 1, 5), ours, strict=True)) / 4
    check(module.training_loss(*GIVEN), total, classification=PLAIN)
    assert module.seen == 0
    assert not module.identifier.training


def test_the_second_classifier_starts_from_scratch():
    module = twice(identification_epochs=1)
    optimizer = torch.optim.AdamW(module.parameters(), 0.1)
    before = module.backbone[1].weight.clone()
    for _ in range(2):
        optimizer.zero_grad()
        module.training_loss(*GIVEN).total.backward()
        optimizer.step()
    assert torch.equal(module.backbone[1].weight, before)
