"""The operations of training, each timed alone; what is measured beside the time is in the JSON's extra_info."""

import operations


def test_training_step(measure):
    measure(operations.TrainingStep)


def test_heatmaps(measure):
    measure(operations.Heatmaps)


def test_heatmap_loss(measure):
    measure(operations.HeatmapLoss)


def test_inference(measure, case):
    inference = measure(operations.Inference)
    if case.is_isnet:
        assert inference.is_backbone(), "an ISNet's inference is not that of its bare backbone"
