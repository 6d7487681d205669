"""Parts of a recipe: the optimizer, mixed precision, dropout before the head, grey images as equal channels."""

import copy
import json

import pytest
import torch
from small_networks import difference
from torch import nn

import isnet
from baselines.ibp_ex import METHOD as IBP_EX
from isnet_bench import config as configuration
from isnet_bench.data import Split
from isnet_bench.io.errors import BenchError
from isnet_bench.io.files import write_json
from isnet_bench.methods import backbones, task
from isnet_bench.training import fit as fitting
from isnet_bench.training import runs
from isnet_bench.training import train as training

METHODS = [isnet.DualISNet, isnet.OriginalISNet, isnet.SelectiveISNet, isnet.StochasticISNet]


class Line(nn.Module):
    """One number p that costs p squared."""

    def __init__(self):
        super().__init__()
        self.p = nn.Parameter(torch.tensor(1.0))

    def forward(self, images):
        return self.p * torch.ones(len(images), 2)

    def training_loss(self, images, masks, labels):
        return isnet.Losses(self.p**2, {"classification": self.p**2})


def some(images=8, size=28):
    masks = torch.zeros(images, 1, size, size)
    masks[..., size // 4 : -size // 4, size // 4 : -size // 4] = 1
    return Split(torch.rand(images, 1, size, size), masks, torch.arange(images) % 4)


def fit(module, split, folder, **settings):
    given = {"epochs": 1, "batch_size": 4, "learning_rate": 0.1, "schedule": "constant", "gradient_clip": None}
    recipe = configuration.Training(**given | settings)
    return fitting.fit(
        module, split, split, recipe, seed=0, name="it", folder=folder, identity="it", device=torch.device("cpu")
    )


@pytest.mark.parametrize(
    ("settings", "by_hand"),
    [
        # p is 1, then 1 - 0.1 * 2, then 0.8 - 0.1 * 1.6.
        ({"momentum": 0.0, "weight_decay": 0.0}, 0.64),
        # The second step is 0.9 * 2 + 1.6.
        ({"momentum": 0.9, "weight_decay": 0.0}, 0.46),
        ({"weight_decay": 0.0}, 0.46),
        # A decay of 1 adds p to its gradient 2 p: 1 - 0.3, then 0.7 - 0.1 (0.9 * 3 + 2.1).
        ({"momentum": 0.9, "weight_decay": 1.0}, 0.22),
    ],
)
def test_sgd_by_hand(tmp_path, settings, by_hand):
    line = Line()
    fit(line, some(), tmp_path, optimizer="sgd", **settings)
    assert line.p.item() == pytest.approx(by_hand, rel=1e-6)


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bf16", torch.bfloat16)])
def test_precision_is_that_of_convolutions_and_not_of_weights(tmp_path, precision, dtype):
    network = backbones.create("resnet_small", 4, 1, 28)
    seen = set()
    network.conv1[0].register_forward_hook(lambda _, __, out: seen.add(out.dtype))
    module = isnet.StochasticISNet(network, isnet.HeatmapLoss(0.1, 10.0))
    state = fit(module, some(), tmp_path, precision=precision, learning_rate=1e-3)
    assert seen == {dtype}
    assert {value.dtype for value in network.parameters()} == {torch.float32}
    assert state.history[0]["train_heatmap"] > 0


@pytest.mark.parametrize("variant", METHODS)
def test_the_loss_in_mixed_precision_is_close_to_that_in_single_precision(variant):
    torch.manual_seed(0)
    network = backbones.create("resnet_small", 4, 1, 28)
    module = variant(network, isnet.HeatmapLoss(0.1, 10.0)).eval()
    torch.manual_seed(1)
    exact = module.training_loss(*some())
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = module.training_loss(*some())
    assert mixed.total.dtype == torch.float32
    for part, value in exact.parts.items():
        assert mixed.parts[part].item() == pytest.approx(value.item(), rel=0.05)


@pytest.mark.parametrize("name", ["resnet_small", "resnet18", "densenet121"])
def test_dropout_before_the_head_is_drawn_in_training_only(name):
    torch.manual_seed(0)
    network = backbones.create(name, 4, 1, 32, drop_rate=0.5)
    plain = backbones.create(name, 4, 1, 32)
    plain.load_state_dict(network.state_dict())
    images = torch.rand(2, 1, 32, 32)
    assert torch.equal(network.eval()(images), plain.eval()(images))
    # Batch norms stay as they are, so that nothing but dropout is drawn.
    for module in network.modules():
        if not isinstance(module, nn.BatchNorm2d):
            module.training = True
    zeroed = []
    head = network.get_classifier()
    head.register_forward_pre_hook(lambda _, given: zeroed.append((given[0] == 0).float().mean().item()))
    assert not torch.equal(network(images), network(images))
    network.eval()(images)
    assert min(zeroed[:2]) > zeroed[2] + 0.2


@pytest.mark.parametrize("engine", [isnet.LRPFlex, isnet.LRPBlock])
@pytest.mark.parametrize("rule", ["zb", "epsilon"])
@pytest.mark.parametrize("name", ["resnet_small", "densenet121"])
def test_a_grey_images_relevance_is_that_of_its_equal_channels_together(engine, rule, name):
    torch.manual_seed(0)
    shown = backbones.create_seeing(name, 4, 1, 32, shown=3).double().eval()
    plain = backbones.create(name, 4, 3, 32).double().eval()
    plain.load_state_dict(shown.state_dict())
    grey = torch.rand(2, 1, 32, 32, dtype=torch.double)
    logits, relevance, _ = engine(shown, input_rule=rule)(grey, isnet.EveryLogit())
    expected = engine(plain, input_rule=rule)(grey.repeat(1, 3, 1, 1), isnet.EveryLogit())
    assert torch.equal(logits, expected[0])
    assert relevance.shape[2] == 1
    assert difference(relevance, expected[1].sum(2, keepdim=True)) < 1e-12


def test_the_channels_of_a_configured_backbone():
    info = {"classes": list("abcd"), "channels": 1, "image_size": 28}
    backbone = configuration.Backbone(name="resnet18", channels=3, options={"drop_rate": 0.5})
    given = task(backbone, info)
    network = copy.deepcopy(given.make_backbone())
    assert (given.channels, network.conv1.in_channels) == (1, 3)
    assert network(torch.rand(2, 1, 28, 28)).shape == (2, 4)
    # Methods that follow the network with tensors of their own follow this, too.
    IBP_EX.build(given, IBP_EX.hyperparameters(), None).training_loss(*some(4)).total.backward()
    with pytest.raises(BenchError, match=r"backbone\.channels is 3, but images have 2 channels"):
        task(backbone, {**info, "channels": 2}).make_backbone()


@pytest.mark.parametrize("name", ["resnet_small", "resnet18"])
def test_normalised_channels_are_explained_with_bounds_that_follow(name):
    torch.manual_seed(0)
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.4)
    normalization = configuration.Normalization(mean=mean, std=std)
    inside = backbones.create_seeing(name, 4, 3, 32, normalization=normalization).double().eval()
    plain = backbones.create(name, 4, 3, 32).double().eval()
    assert list(inside.state_dict()) == list(plain.state_dict())
    plain.load_state_dict(inside.state_dict())
    images = torch.rand(2, 3, 32, 32, dtype=torch.double)
    low, high = isnet.pixel_bounds(mean, std)
    seen = (images - torch.tensor(mean)[:, None, None].double()) / torch.tensor(std)[:, None, None].double()
    logits, relevance, _ = isnet.LRPFlex(inside, low=0.0, high=1.0)(images, isnet.EveryLogit())
    expected = isnet.LRPFlex(plain, low=low, high=high)(seen, isnet.EveryLogit())
    assert difference(logits, expected[0]) < 1e-6
    assert difference(relevance, expected[1]) < 1e-6
    with pytest.raises(isnet.UnsupportedNetworkError, match="LRP-Block has no rule for scaling activations by"):
        isnet.LRPBlock(inside)(images, isnet.EveryLogit())


def test_normalisation_is_for_the_channels_that_the_network_sees():
    info = {"classes": list("abcd"), "channels": 1, "image_size": 28}
    given = {"mean": (0.1, 0.2, 0.3), "std": (1.0, 1.0, 1.0)}
    grey = configuration.Backbone(name="resnet_small", channels=3, normalization=given)
    network = copy.deepcopy(task(grey, info).make_backbone()).eval()
    # One equal channel more or less than the mean: shifts of what the network sees are shifts of the mean.
    moved = configuration.Backbone(name="resnet_small", channels=3, normalization={**given, "mean": (0.3, 0.4, 0.5)})
    other = task(moved, info).make_backbone().eval()
    other.load_state_dict(network.state_dict())
    images = torch.rand(2, 1, 28, 28)
    torch.testing.assert_close(other(images + 0.2), network(images), rtol=1e-4, atol=1e-5)
    with pytest.raises(BenchError, match=r"backbone\.normalization is for 3 channels, and the network sees 1"):
        task(configuration.Backbone(name="resnet_small", normalization=given), info).make_backbone()
    with pytest.raises(ValueError, match="mean has 3 numbers and std 2"):
        configuration.Normalization(mean=(0.1, 0.2, 0.3), std=(1.0, 1.0))


def test_a_record_that_is_older_than_a_key_was_made_as_the_keys_default_says(tiny_given, tiny_data, tmp_path):
    def job(**settings):
        given = copy.deepcopy(tiny_given)
        given["experiments"]["tiny"]["training"].update(epochs=1, **settings)
        return runs.Job(configuration.check(given, "the test"), "tiny", "resnet", 0, tiny_data)

    training.train(job(), tmp_path / "run", None)
    file = tmp_path / "run" / "run.json"
    record = json.loads(file.read_text())
    for key in ("optimizer", "momentum", "precision"):
        del record["training"][key]
    write_json(file, record)
    network, _ = runs.trained(job(), tmp_path / "run")
    assert not network.training
    for other in ({"optimizer": "sgd"}, {"precision": "bf16"}):
        with pytest.raises(BenchError, match="was trained with another training"):
            runs.trained(job(**other), tmp_path / "run")
