"""What every registered method must do; a new one is tested without a line here."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

from baselines.base import Method
from isnet_bench import config as configuration
from isnet_bench import methods
from isnet_bench.errors import BenchError

CLASSES, SIZE, IMAGES = 4, 28, 8
INFO = {"classes": list("abcd"), "channels": 1, "image_size": SIZE}
BACKBONE = {"name": "resnet_small", "options": {}}


def entry(name):
    registered = methods.get(name)
    fixed = {"c1": 1.0, "c2": 25.0} if registered.needs_range({}) else {}
    return configuration.MethodEntry(name, name, registered.label, fixed, {})


def build(name, seed=0, class_weights=None):
    torch.manual_seed(seed)
    given = entry(name)
    return methods.build(given, methods.task(BACKBONE, INFO, class_weights), None)


def batch():
    """Bars whose place and brightness tell the class, on a mask that holds them."""
    generator = torch.Generator().manual_seed(0)
    images = 0.1 * torch.rand(IMAGES, 1, SIZE, SIZE, generator=generator)
    labels, masks = torch.arange(IMAGES) % CLASSES, torch.zeros(IMAGES, 1, SIZE, SIZE)
    masks[:, :, 4:24, 4:24] = 1
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, 4 + 5 * label : 9 + 5 * label, 4:24] = 0.4 + 0.2 * label
    return images, masks, labels


def loss(module, seed=1):
    torch.manual_seed(seed)
    return module.training_loss(*batch())


every_method = pytest.mark.parametrize("name", methods.names())


def test_the_registry_knows_the_plain_classifier_and_the_four_isnets():
    isnets = [f"{variant}_isnet" for variant in ("dual", "original", "selective", "stochastic")]
    assert {"resnet", *isnets} <= set(methods.names())
    assert methods.names()[-4:] == isnets


def test_unknown_methods_list_the_known_ones():
    with pytest.raises(BenchError, match=r"unknown method 'vgg'; known: .*resnet.*stochastic_isnet"):
        methods.get("vgg")


@every_method
def test_description(name):
    method = methods.get(name)
    assert isinstance(method, Method)
    assert method.name == name
    assert method.label
    assert method.family in ("baseline", "isnet")
    assert dataclasses.is_dataclass(method.hyperparameters)
    defaults = method.hyperparameters()
    assert methods.hyperparameters(entry(name)) == dataclasses.replace(defaults, **entry(name).params)
    for field in dataclasses.fields(defaults):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(defaults, field.name, None)
    if method.needs_range({}):
        assert method.explained(defaults).name


@every_method
def test_unknown_hyperparameters_are_errors_that_list_the_known_ones(name, tiny_config):
    given = copy.deepcopy(tiny_config)
    given["experiments"]["tiny"]["methods"] = {name: {"params": {"no_such_thing": 1}}}
    with pytest.raises(BenchError, match=rf"'no_such_thing' in .*methods.{name}.params; known") as caught:
        configuration.check(given, "test")
    for field in dataclasses.fields(methods.get(name).hyperparameters):
        assert field.name in str(caught.value)


@every_method
def test_hyperparameters_of_the_wrong_kind_are_errors(name, tiny_config):
    for field in dataclasses.fields(methods.get(name).hyperparameters):
        given = copy.deepcopy(tiny_config)
        given["experiments"]["tiny"]["methods"] = {name: {"params": {field.name: {"a": "mapping"}}}}
        with pytest.raises(BenchError, match=rf"methods.{name}.params.*{field.name}"):
            configuration.check(given, "test")


@every_method
def test_shapes_and_finite_losses(name):
    module = build(name)
    images = batch()[0]
    for mode in (True, False):
        module.train(mode)
        assert module(images).shape == (IMAGES, CLASSES)
        losses = loss(module)
        assert losses.total.shape == ()
        assert losses.parts
        assert all(part.shape == () for part in losses.parts.values())
        assert all(bool(value.isfinite()) for value in (losses.total, *losses.parts.values()))


@every_method
def test_loss_has_the_same_parts_in_every_batch(name):
    module = build(name).train()
    assert len({tuple(loss(module, seed).parts) for seed in range(3)}) == 1


@every_method
def test_every_trainable_parameter_gets_a_gradient(name):
    module = build(name).train()
    # A few steps away from the start, where weights that begin at zero may block the way.
    optimizer = torch.optim.AdamW(module.parameters(), 1e-3)
    for seed in range(3):
        optimizer.zero_grad()
        loss(module, seed).total.backward()
        optimizer.step()
    gradients = {key: p.grad for key, p in module.named_parameters() if p.requires_grad}
    assert [key for key, gradient in gradients.items() if gradient is None or not gradient.any()] == []
    assert all(bool(gradient.isfinite().all()) for gradient in gradients.values())


@every_method
def test_loss_decreases_on_one_batch(name):
    module = build(name).train()
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], 2e-3)
    values = []
    for step in range(16):
        optimizer.zero_grad()
        losses = loss(module, step)
        losses.total.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        values.append(losses.total.item())
    assert sum(values[-4:]) < 0.9 * sum(values[:4])


@every_method
def test_same_seed_same_numbers(name):
    first, second, other = build(name), build(name), build(name, seed=1)
    for module in (first, second, other):
        module.train()
    results = [loss(module).total for module in (first, second)]
    assert torch.equal(*results)
    assert not torch.equal(results[0], loss(other).total)


@every_method
def test_state_goes_round_and_what_is_left_is_a_plain_network(name):
    trained, fresh = build(name), build(name, seed=1)
    loss(trained.train()).total.backward()
    images = batch()[0]
    network, target = methods.classifier(trained.eval()), methods.classifier(fresh.eval())
    target.load_state_dict(network.state_dict())
    with torch.inference_mode():
        assert torch.equal(target(images), trained(images))
    assert all(module._forward_hooks == {} and module._backward_hooks == {} for module in network.modules())


@every_method
def test_evaluation_mode_treats_each_image_alone_and_leaves_no_trace(name):
    module = build(name).eval()
    images = batch()[0]
    before = copy.deepcopy(module.state_dict())
    alone = torch.cat([module(image[None]) for image in images])
    torch.testing.assert_close(module(images), alone, rtol=1e-3, atol=1e-4)
    loss(module)
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())


@every_method
def test_class_weights_matter(name):
    weighted = build(name, class_weights=torch.tensor([9.0, 1.0, 1.0, 1.0])).train()
    assert not torch.equal(loss(build(name).train()).total, loss(weighted).total)
