"""What every registered method must do; a new one is tested without a line here."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import isnet
from baselines.base import Method, NoHyperparameters, of_masked, with_mask
from baselines.classifier import BackboneClassifier
from isnet.map_groups import loss_by_groups
from isnet_bench import config as configuration
from isnet_bench import methods
from isnet_bench.evaluation import relevance as relevances
from isnet_bench.io.checks import Failure, problem_of
from isnet_bench.io.errors import BenchError
from isnet_bench.methods import conformance, isnets
from isnet_bench.methods.conformance import CHECKS, Subject

every_method = pytest.mark.parametrize("name", methods.names())


@pytest.fixture(scope="module")
def subjects():
    return {name: Subject(methods.get(name)) for name in methods.names()}


@every_method
@pytest.mark.parametrize("check", CHECKS)
def test_a_method_is_as_the_benchmark_needs_it(name, check, subjects):
    assert problem_of(CHECKS[check], subjects[name]) == ""


@every_method
@pytest.mark.parametrize("check", ["shapes, and finite losses", "a gradient reaches every trainable parameter"])
def test_a_method_takes_photographs_in_colours(name, check):
    assert problem_of(CHECKS[check], Subject(methods.get(name), channels=3)) == ""


@every_method
def test_a_map_of_a_photograph_has_its_channels(name):
    subject = Subject(methods.get(name), channels=3)
    images, masks, labels = conformance.batch(3)
    network = subject.method.trained(subject.build()).eval()
    relevance = relevances.explainer(subject.method, network, images[:2]).explain(images, masks, labels)
    assert relevance.shape == images.shape
    shares, empty = relevances.background_relevance(relevance, masks), ~relevance.flatten(1).any(1)
    # A classifier that has not learned where to look may see nothing.
    assert torch.equal(shares.isnan(), empty)
    assert ((shares[~empty] >= 0) & (shares[~empty] <= 1)).all()


@every_method
def test_the_configuration_checks_hyperparameters(name, tiny_given):
    known = [field.name for field in dataclasses.fields(methods.get(name).hyperparameters)]
    params = {"no_such_thing": 1, **{key: {"a": "mapping"} for key in known}}
    section = {**tiny_given["experiments"]["tiny"], "methods": {name: {"params": params}}}
    with pytest.raises(BenchError, match="unknown key 'no_such_thing'") as caught:
        configuration.check({**tiny_given, "experiments": {"tiny": section}}, "test")
    for key in known:
        assert f"experiments.tiny.methods.{name}.params.{key}: " in str(caught.value)


# Hyper-parameters that are refused; the last one of each is named.
REFUSED = [
    ("rrr", {"weight": -1.0}), ("rrr", {"weight": math.nan}), ("gain", {"mining_weight": -1.0}), ("gain", {"slope": 0}),
    ("gain", {"threshold": -0.5}), ("gradcam_loss", {"weight": -1}), ("unet_classifier", {"threshold": 1.5}),
    ("unet_classifier", {"training_masks": "none"}), ("multitask_unet", {"width": 0}), ("ham", {"width": 1}),
    ("ham", {"bound_weight": -1}), ("ag_sononet", {"auxiliary_weight": 0}), ("vit", {"patch_size": 0}),
    ("vit", {"heads": 5, "dim": 48}), ("softmax_grad_input", {"c1": 1.0}), ("softmax_grad_input", {"c2": 1, "c1": 2}),
    ("dual_isnet", {"heatmap_fraction": 0}), ("original_isnet", {"foreground": "l3"}), ("dual_isnet", {"epsilon": 0}),
    ("stochastic_isnet", {"p_top": 1.1}), ("selective_isnet", {"eta_eps": 0}), ("selective_isnet", {"decay": 2.0}),
    ("selective_isnet", {"decay": []}), ("softmax_grad_input", {"decay": [0.9, 2.0]}),
    ("original_isnet", {"inactive_slope": 1.5}), ("dual_isnet", {"propagation": "block", "inactive_slope": 0.1}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "params"), REFUSED)
def test_values_out_of_bounds_are_refused(name, params):
    with pytest.raises(BenchError, match=list(params)[-1]):
        methods.hyperparameters(configuration.Row(id=name, method=name, label=name, params=params))


def test_decay_is_a_number_or_several():
    for given, decays in ((0.9, (0.9,)), ([0.9, 0.99], (0.9, 0.99))):
        row = configuration.Row(id="x", method="stochastic_isnet", label="x", params={"decay": given})
        found = methods.hyperparameters(row)
        assert found.loss({"input": [{"c1": 1.0, "c2": 2.0}]}).decays == decays


def test_the_registry_knows_the_plain_classifier_and_the_four_isnets():
    family = [f"{variant}_isnet" for variant in ("dual", "original", "selective", "stochastic")]
    assert "resnet" in methods.names()
    assert methods.names()[-4:] == family
    assert [methods.get(name).label for name in family] == [f"{name.split('_')[0].title()} ISNet" for name in family]


def test_unknown_methods_list_the_known_ones():
    with pytest.raises(BenchError, match=r"unknown method 'resent'; did you mean 'resnet'\? known: .*stochastic_isnet"):
        methods.get("resent")


# --- what the checks find -----------------------------------------------------------------------------------


class Sound(BackboneClassifier):
    """To be broken in one way at a time."""


class ConstantLoss(Sound):
    def training_loss(self, images, masks, labels):
        loss = (self(images) * 0).sum() + 1
        return isnet.Losses(loss, {"nothing": loss})


class Maskless(Sound):
    def training_loss(self, images, masks, labels):
        loss = F.cross_entropy(self(images * masks), labels, weight=self.class_weights)
        return isnet.Losses(loss, {"classification": loss})


class TransposedLogits(Sound):
    def forward(self, images):
        return self.backbone(images).T


@pytest.mark.parametrize(
    ("module", "check", "problem"),
    [
        (ConstantLoss, "the loss falls on one batch", "the loss goes from 1 to 1 in 16 steps on one batch"),
        (ConstantLoss, "a gradient reaches every trainable parameter", "no gradient reaches backbone"),
        (ConstantLoss, "class weights matter", "the loss is the same with them"),
        (ConstantLoss, "the same seed gives the same numbers", "another seed gives the same loss"),
        (Maskless, "images without a mask take part in classification", "the loss total is nan"),
        (TransposedLogits, "shapes, and finite losses", r"logits have the shape \(4, 8\)"),
    ],
)
def test_a_check_says_what_is_wrong(module, check, problem):
    subject = Subject(Method("broken", "Broken", NoHyperparameters, module, kept="backbone"))
    with pytest.raises(Failure, match=problem):
        CHECKS[check](subject)


# --- images without a mask ----------------------------------------------------------------------------------


def test_a_term_of_a_loss_is_that_of_the_images_with_a_mask():
    images, masks, _ = conformance.batch()
    masks[2:] = torch.nan
    assert with_mask(masks).tolist() == [True] * 2 + [False] * 6
    assert torch.equal(of_masked(F.mse_loss, images, masks), F.mse_loss(images[:2], masks[:2]))
    assert of_masked(F.mse_loss, images, torch.full_like(masks, torch.nan)).item() == 0
    assert torch.equal(of_masked(F.mse_loss, images, masks.nan_to_num()), F.mse_loss(images, masks.nan_to_num()))


# Terms that need no mask.
MASKLESS = {"classification", "auxiliary", "mining", "foreground", "bound", "union"}


@every_method
def test_images_without_a_mask_add_nothing_to_what_needs_one(name):
    method = methods.get(name)
    subject = Subject(method)
    # Otherwise it draws classes, and others for another number of images.
    hyperparameters = method.hyperparameters(**({"p_label": 1.0} if name == "lrp_distillation" else {}))
    torch.manual_seed(0)
    module = method.build(subject.task(), hyperparameters, subject.ranges).eval()
    images, masks, labels = conformance.batch()
    masks[4:] = torch.nan
    given = [images, masks, labels, *([conformance.GROUPS] if method.groups else [])]
    torch.manual_seed(1)
    found = module.training_loss(*given).parts
    torch.manual_seed(1)
    expected = module.training_loss(*(tensor[:4] for tensor in given)).parts
    for part in set(found) - MASKLESS:
        assert found[part].item() == pytest.approx(expected[part].item(), rel=1e-4), part
    masks[:] = torch.nan
    nothing = module.training_loss(*given).parts
    assert {nothing[part].item() for part in set(found) - MASKLESS} <= {0.0}


@every_method
def test_the_docs_say_what_becomes_of_an_image_without_a_mask(name):
    text = (Path(__file__).resolve().parents[1] / "docs" / "methods.md").read_text(encoding="utf-8")
    section = text.split("### Images without a mask")[1].split("\nHow many training images")[0]
    assert f"`{name}`" in section


# --- a fifth ISNet is one class -----------------------------------------------------------------------------


class PairISNet(isnet.ISNet):
    """Explains one given class."""

    def __init__(self, *args, label: int = 1, **kwargs):
        super().__init__(*args, **kwargs)
        self.label = label

    def quantity(self):
        return isnet.Logit(self.label)


def test_an_isnet_is_described_by_its_class():
    method = isnets.method(PairISNet)
    assert (method.name, method.label, method.family) == ("pair_isnet", "Pair ISNet", "isnet")
    assert method.hyperparameters(label=2).label == 2
    assert method.range.fields == ("propagation", "layers", "epsilon", "input_rule", "inactive_slope", "label")
    assert [name for name, check in CHECKS.items() if problem_of(check, Subject(method))] == []


@pytest.mark.parametrize("name", ["original_isnet", "dual_isnet"])
def test_a_row_of_several_heatmaps_holds_the_graph_of_one_at_a_time(name, monkeypatch):
    method, made = methods.get(name), []
    module = method.build(Subject(method).task(), method.hyperparameters(), Subject(method).ranges)
    monkeypatch.setattr("isnet.flex.loss_by_groups", lambda *given: made.append(loss_by_groups(*given)) or made[-1])
    module.training_loss(*conformance.batch())
    assert [value is not None for value in made] == [True]
