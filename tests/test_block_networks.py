"""LRP-Block on real architectures, and what it leaves behind in them: nothing."""

import copy
import gc
import threading
import weakref

import pytest
import timm
import torch
import torchvision
from timm.layers import ClassifierHead
from timm.models.vgg import ConvMlp
from torch import nn
from torchvision.models.resnet import Bottleneck, ResNet

import isnet

CLASSES = 4
VGG_CONFIGURATIONS = torchvision.models.vgg.cfgs


def torchvision_vgg(configuration, batch_norm):
    """A VGG with all its convolutions; only the 100 million weights of its classifier are fewer."""
    with torch.device("meta"):
        network = torchvision.models.VGG(nn.Identity(), num_classes=CLASSES, init_weights=False)
    layers = VGG_CONFIGURATIONS[configuration]
    network.features = torchvision.models.vgg.make_layers(layers, batch_norm=batch_norm)
    network.classifier = nn.Sequential(
        nn.Linear(512 * 49, 16), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(16, CLASSES)
    )
    return network


def timm_vgg():
    with torch.device("meta"):
        network = timm.create_model("vgg11_bn", num_classes=CLASSES)
    network.features = torchvision.models.vgg.make_layers(VGG_CONFIGURATIONS["A"], batch_norm=True)
    network.pre_logits = ConvMlp(512, 16, 7, mlp_ratio=1)
    network.head = ClassifierHead(16, CLASSES)
    return network


def torchvision_resnet(**options):
    return ResNet(Bottleneck, [1, 1, 1, 1], num_classes=CLASSES, **options)


def from_torchvision(name, **options):
    return lambda: getattr(torchvision.models, name)(num_classes=CLASSES, **options)


def from_timm(name):
    return lambda: timm.create_model(name, num_classes=CLASSES)


ARCHITECTURES = {
    "vgg11": (lambda: torchvision_vgg("A", batch_norm=False), (64, 64)),
    "vgg11_bn": (lambda: torchvision_vgg("A", batch_norm=True), (64, 48)),
    "vgg16": (lambda: torchvision_vgg("D", batch_norm=False), (33, 40)),
    "vgg16_bn": (lambda: torchvision_vgg("D", batch_norm=True), (33, 40)),
    "resnet18": (from_torchvision("resnet18"), (64, 48)),
    "resnet50": (from_torchvision("resnet50"), (32, 48)),
    "wide resnet": (lambda: torchvision_resnet(width_per_group=128), (32, 32)),
    "resnext": (lambda: torchvision_resnet(groups=32, width_per_group=4), (32, 33)),
    "densenet121": (from_torchvision("densenet121"), (37, 45)),
    "googlenet": (from_torchvision("googlenet", init_weights=False, aux_logits=False), (33, 47)),
    "shufflenet_v2_x0_5": (from_torchvision("shufflenet_v2_x0_5"), (48, 33)),
    "regnet_x_400mf": (from_torchvision("regnet_x_400mf"), (35, 32)),
    "mnasnet0_5": (from_torchvision("mnasnet0_5"), (32, 41)),
    "timm resnet18": (from_timm("resnet18"), (47, 33)),
    "timm resnet26d": (from_timm("resnet26d"), (49, 35)),
    "timm vgg11_bn": (timm_vgg, (64, 40)),
    "timm densenet121": (from_timm("densenet121"), (33, 33)),
    "timm dla34": (from_timm("dla34"), (32, 64)),
    "timm repvgg_a0": (from_timm("repvgg_a0"), (32, 35)),
}


def with_lively_norms(network):
    """Give batch norms statistics under which activations keep their size, and gammas of both signs."""
    torch.manual_seed(0)
    with torch.no_grad():
        network.train()(torch.rand(8, 3, 96, 96))
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.copy_(torch.rand_like(module.weight) + 0.5)
                module.weight[::7] *= -1
                module.bias.copy_(0.2 * torch.randn_like(module.bias))
    return network.eval()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architectures_train_with_both_rules(name):
    torch.manual_seed(0)
    make, size = ARCHITECTURES[name]
    network, images = make().train(), torch.rand(2, 3, *size)
    masks = torch.zeros(2, 1, *size)
    masks[:, :, 8:24, 8:24] = 1
    logits, relevance, _ = isnet.LRPBlock(network)(images, isnet.JointLogits())
    assert logits.shape == (2, CLASSES)
    assert relevance.shape == (2, 2, *images.shape[1:])
    assert bool(relevance.isfinite().all())
    isnet.HeatmapLoss(c1=1.0, c2=5.0)(relevance, masks).backward()
    untouched = {name for name, parameter in network.named_parameters() if parameter.grad is None}
    output_bias = list(dict(network.named_parameters()))[-1]
    assert untouched == {output_bias}


@pytest.mark.parametrize(
    "name", ["resnet18", "densenet121", "googlenet", "timm resnet26d", "timm vgg11_bn", "shufflenet_v2_x0_5"]
)
def test_as_epsilon_vanishes_the_map_is_that_of_lrp_flex(name):
    """Without epsilon both engines are LRP-0, and LRP-Flex knows nothing of layers and their order."""
    make, size = ARCHITECTURES[name]
    network = with_lively_norms(make()).double()
    images = torch.rand(1, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        block, flex = (
            engine(network, rules=("epsilon",), epsilon=1e-13)(images, isnet.Logit(1)).relevance
            for engine in (isnet.LRPBlock, isnet.LRPFlex)
        )
    assert ((block - flex).abs().max() / flex.abs().max()).item() < 1e-4


def small_resnet():
    torch.manual_seed(3)
    network = timm.create_model("resnet10t", num_classes=CLASSES, channels=(8, 8, 8, 8), stem_width=8)
    return with_lively_norms(network)


def test_heatmaps_in_evaluation_mode_do_not_depend_on_the_batch():
    network, images = small_resnet(), torch.rand(5, 3, 33, 45)
    explain = isnet.LRPBlock(network, layers=("layer2",))
    with torch.no_grad():
        together = explain(images, isnet.JointLogits())
        for index, image in enumerate(images):
            alone = explain(image[None], isnet.JointLogits())
            for of_one, of_all in (
                (alone.relevance, together.relevance),
                (alone.layers["layer2"], together.layers["layer2"]),
            ):
                torch.testing.assert_close(of_one[0], of_all[index], rtol=1e-4, atol=1e-6)


def test_joint_epsilon_map_is_the_sum_of_the_class_maps():
    network, images = small_resnet().double(), torch.rand(2, 3, 32, 32, dtype=torch.float64)
    explain = isnet.LRPBlock(network, rules=("epsilon",))
    every = explain(images, isnet.EveryLogit()).relevance
    assert every.shape == (2, CLASSES, 3, 32, 32)
    torch.testing.assert_close(explain(images, isnet.JointLogits()).relevance, every.sum(1, keepdim=True))
    labels = torch.tensor([3, 1])
    chosen = explain(images, isnet.Logit(labels)).relevance
    torch.testing.assert_close(chosen[:, 0], every[torch.arange(2), labels])


def test_maps_are_ordered_by_rule_then_class():
    network, images = small_resnet(), torch.rand(2, 3, 32, 32)
    quantity = isnet.EveryLogit()
    with torch.no_grad():
        both = isnet.LRPBlock(network, rules=("epsilon", "zplus"), layers=("layer1",))(images, quantity)
        for position, rule in enumerate(("epsilon", "zplus")):
            one = isnet.LRPBlock(network, rules=(rule,), layers=("layer1",))(images, quantity)
            maps = slice(position * CLASSES, (position + 1) * CLASSES)
            torch.testing.assert_close(both.relevance[:, maps], one.relevance)
            torch.testing.assert_close(both.layers["layer1"][:, maps], one.layers["layer1"])


def test_without_gradients_the_numbers_are_the_same_and_detached():
    network, images = small_resnet(), torch.rand(2, 3, 32, 32)
    explain = isnet.LRPBlock(network)
    attached = explain(images, isnet.JointLogits())
    assert attached.relevance.requires_grad
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            detached = explain(images, isnet.JointLogits())
        assert not detached.relevance.requires_grad
        assert torch.equal(detached.relevance, attached.relevance)
        assert torch.equal(detached.logits, attached.logits)


def hooks(network):
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) + len(module._backward_hooks)
        for module in network.modules()
    )


def test_the_network_is_left_as_it_was():
    network, images = small_resnet(), torch.rand(2, 3, 32, 32)
    before = copy.deepcopy(network.state_dict())
    explain = isnet.LRPBlock(network, layers=("layer1", "fc"))
    explain(images, isnet.JointLogits())
    with pytest.raises(ValueError, match="labels"):
        explain(images, isnet.Logit(99))
    assert hooks(network) == 0
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_training_mode_updates_running_statistics_once():
    network, images = small_resnet(), torch.rand(4, 3, 32, 32)
    plain = copy.deepcopy(network).train()
    plain(images)
    isnet.LRPBlock(network.train())(images, isnet.JointLogits())
    expected = plain.state_dict()
    assert all(torch.equal(expected[key], value) for key, value in network.state_dict().items())


def test_statistics_of_an_earlier_pass_are_constants():
    network, images = small_resnet().train(), torch.rand(4, 3, 32, 32)
    explain = isnet.LRPBlock(network)
    whole = explain(images, isnet.JointLogits())
    with isnet.BatchStatistics() as statistics:
        network(images)
    running = [norm.running_mean.clone() for norm in network.modules() if isinstance(norm, nn.BatchNorm2d)]
    part = explain(images[1:3], isnet.JointLogits(), statistics)
    torch.testing.assert_close(part.logits, whole.logits[1:3], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(part.relevance, whole.relevance[1:3], rtol=1e-3, atol=1e-4)
    after = [norm.running_mean for norm in network.modules() if isinstance(norm, nn.BatchNorm2d)]
    assert all(torch.equal(*pair) for pair in zip(running, after, strict=True))
    with pytest.raises(ValueError, match="another network"):
        explain(images, isnet.JointLogits(), isnet.BatchStatistics())


def test_threads_and_engines_do_not_disturb_each_other():
    network, images = small_resnet(), torch.rand(2, 3, 32, 32)
    epsilons = (1e-3, 1e-2, 1e-1, 1.0)
    engines = [isnet.LRPBlock(network, epsilon=epsilon, layers=("layer1", "layer3")) for epsilon in epsilons]
    alone = [explain(images, isnet.JointLogits()) for explain in engines]
    found = {}

    def work(index):
        found[index] = [engines[index](images, isnet.JointLogits()) for _ in range(5)]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(engines))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, expected in enumerate(alone):
        for explanation in found[index]:
            assert torch.equal(explanation.relevance, expected.relevance)
            assert torch.equal(explanation.layers["layer1"], expected.layers["layer1"])
    assert hooks(network) == 0


def test_activations_are_freed_without_the_garbage_collector():
    network, images = small_resnet(), torch.rand(2, 3, 32, 32)
    activations = []
    network.layer1.register_forward_hook(lambda *call: activations.append(weakref.ref(call[-1])))
    gc.collect()
    gc.disable()
    try:
        explanation = isnet.LRPBlock(network, layers=("layer2",))(images, isnet.JointLogits())
        explanation.relevance.sum().backward()
        del explanation
        assert activations[0]() is None
    finally:
        gc.enable()


def replaced(network, kind, make):
    network = copy.deepcopy(network)
    for name, module in list(network.named_modules()):
        if isinstance(module, kind):
            parent, _, attribute = name.rpartition(".")
            setattr(network.get_submodule(parent), attribute, make())
    return network


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_in_place_relus_give_the_same_maps(mode):
    network, images = small_resnet(), torch.rand(2, 3, 33, 32)
    out_of_place = replaced(network, nn.ReLU, nn.ReLU)
    assert any(module.inplace for module in network.modules() if isinstance(module, nn.ReLU))
    maps = [
        isnet.LRPBlock(getattr(net, mode)(), layers=("bn1",))(images, isnet.JointLogits())
        for net in (network, out_of_place)
    ]
    torch.testing.assert_close(maps[0].relevance, maps[1].relevance)
    torch.testing.assert_close(maps[0].layers["bn1"], maps[1].layers["bn1"])


def test_a_layer_that_runs_twice_has_no_single_relevance():
    network = torchvision.models.resnet18(num_classes=CLASSES).eval()
    with pytest.raises(ValueError, match="more than once"):
        isnet.LRPBlock(network, layers=("layer1.0.relu",))(torch.rand(1, 3, 32, 32), isnet.JointLogits())
    assert hooks(network) == 0


def test_relevance_inside_a_fused_layer_is_that_of_its_batch_norm():
    network, images = small_resnet(), torch.rand(1, 3, 32, 32)
    names = ("layer1.0.conv1", "layer1.0.bn1")
    layers = isnet.LRPBlock(network, layers=names)(images, isnet.JointLogits()).layers
    assert torch.equal(layers[names[0]], layers[names[1]])
