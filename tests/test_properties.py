"""Properties that hold for whatever is given: of manifests, marks, GWRP and the heatmap loss, on drawn examples."""

from __future__ import annotations

import csv
import io
import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor

import isnet
from isnet_bench.data import bias
from isnet_bench.data.images import manifest
from isnet_bench.io.errors import BenchError

few = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
COLUMNS = ("image", "label", "split")

# ---- manifests ----

# No quotes, no ends of lines: these are what csv itself is tested for.
cells = st.text(st.characters(codec="utf-8", exclude_characters='\0\r\n"', exclude_categories=("Cs", "Cc")), max_size=8)
tables = st.lists(st.tuples(cells, cells, cells), min_size=1, max_size=6)


def written(rows, columns=COLUMNS, **options):
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n", **options)
    writer.writerow(columns)
    writer.writerows(rows)
    return file.getvalue()


@few
@given(tables, st.booleans(), st.permutations(range(4)))
def test_what_a_manifest_says_is_what_is_read(tmp_path, rows, signed, order):
    kept = {line: [cell.strip() for cell in row] for line, row in enumerate(rows, start=2)}
    kept = {line: row for line, row in kept.items() if any(row)}
    path = tmp_path / "manifest.csv"
    columns = [(*COLUMNS, "more")[place] for place in order]
    text = written([[(*row, "x")[place] for place in order] for row in rows], columns)
    path.write_bytes((b"\xef\xbb\xbf" if signed else b"") + text.encode())
    if not kept:
        with pytest.raises(BenchError, match="has a header but no rows"):
            manifest.read(path, COLUMNS)
        return
    found = manifest.read(path, COLUMNS, ["patient"])
    assert {line: list(row) for line, *row in found[list(COLUMNS)].itertuples()} == kept
    assert (found["patient"] == "").all()


@few
@given(st.binary(max_size=60))
def test_whatever_a_manifest_holds_it_is_read_or_refused_in_a_sentence(tmp_path, content):
    path = tmp_path / "manifest.csv"
    path.write_bytes(content)
    sentence, found = "", None
    try:
        found = manifest.read(path, COLUMNS)
    except BenchError as error:
        sentence = str(error)
    if found is None:
        assert str(path) in sentence
        assert "\n" not in sentence
    else:
        assert list(found) == list(COLUMNS)
        assert len(found)


@few
@given(st.lists(st.sampled_from(["a", "..", ".", "b.png", "", "/"]), min_size=1, max_size=5).map("/".join))
def test_no_name_of_a_manifest_leads_out_of_its_folder(tmp_path, name):
    found = manifest.locate(tmp_path / "manifest.csv", name)
    inside = not name.startswith("/") and ".." not in name.split("/")
    assert (found is not None) == inside
    if inside:
        assert found.resolve().is_relative_to(tmp_path.resolve())


# ---- marks ----


@st.composite
def marked(draw):
    """A bias, its marks, and images with foregrounds that leave room for them, labels and a seed."""
    pattern = draw(st.sampled_from(["border_pixel", "corner_patch", "tinted_background", "corner_shape"]))
    classes = draw(st.integers(2, 3 if pattern == "corner_shape" else 10))
    size = draw(st.integers(6, 8) if pattern == "corner_shape" else st.integers(1, 2))
    made = bias.Bias(pattern, draw(st.floats(0, 1)), size)
    marks = bias.make_marks(made, classes, 24)
    number = draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    images = rng.integers(0, 256, (number, draw(st.sampled_from([1, 3])), 24, 24)).astype(np.uint8)
    masks = (rng.random((number, 1, 24, 24)) < draw(st.floats(0, 1))).astype(np.uint8)
    if marks.corner:
        free = draw(st.lists(st.integers(0, 3), min_size=number, max_size=number))
        for mask, (rows, columns) in zip(masks, [bias._corners(size, 24)[place] for place in free], strict=True):
            mask[:, rows, columns] = 0
    elif marks.sides:
        left, right = marks.sides
        masks[..., :left] = masks[..., 24 - right :] = 0
    masks[..., 12, 12] = 1
    if pattern == "tinted_background":
        masks[..., 0, 5] = 0
    return made, marks, images, masks, rng.integers(0, classes, number), rng


@few
@given(marked())
def test_no_mark_lies_under_a_mask_and_the_background_alone_tells_whose_it_is(drawn):
    made, marks, images, masks, labels, rng = drawn
    which = bias.choose(labels, len(marks.levels), made.strength, rng)
    before = images.copy()
    found = bias.apply(images, masks, marks, which)
    np.testing.assert_array_equal(images, before)
    inside = np.broadcast_to(masks > 0, images.shape)
    np.testing.assert_array_equal(found[inside], images[inside])
    # With all classes' marks tried, the background alone, grey everywhere but for a mark, tells the one.
    blank = np.full_like(images, 77)
    background = np.where(inside, 0, bias.apply(blank, masks, marks, which))
    tried = [
        np.where(inside, 0, bias.apply(blank, masks, marks, np.full(len(labels), one)))
        for one in range(len(marks.levels))
    ]
    fits = np.stack([(background == one).all((1, 2, 3)) for one in tried])
    np.testing.assert_array_equal(fits.argmax(0), which)
    assert (fits.sum(0) == 1).all()


@few
@given(st.integers(2, 10), st.integers(0, 2**32))
def test_marks_agree_with_labels_always_or_never(classes, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, 50)
    np.testing.assert_array_equal(bias.choose(labels, classes, 1.0, rng), labels)
    others = bias.choose(labels, classes, 0.0, rng)
    assert not (others == labels).any()
    assert ((others >= 0) & (others < classes)).all()


# ---- GWRP and loss ----

numbers = st.floats(-1e3, 1e3)
rows = arrays.arrays(np.float64, st.tuples(st.integers(1, 3), st.integers(1, 40)), elements=numbers)
decays = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1))


@few
@given(rows, decays, st.randoms(use_true_random=False))
def test_gwrp_is_a_mean_of_ranked_values(given_rows, decay, random):
    values = torch.from_numpy(given_rows)
    found = isnet.gwrp(values, decay)
    weights = [decay**rank for rank in range(values.shape[1])]
    for row, one in zip(given_rows, found, strict=True):
        ranked = sorted(row, reverse=True)
        expected = math.fsum(w * v for w, v in zip(weights, ranked, strict=True)) / math.fsum(weights)
        assert one.item() == pytest.approx(expected, rel=1e-9, abs=1e-6)
    order = list(range(values.shape[1]))
    random.shuffle(order)
    torch.testing.assert_close(isnet.gwrp(values[:, order], decay), found)
    torch.testing.assert_close(isnet.gwrp(3 * values + 2, decay), 3 * found + 2)
    assert bool((found <= values.max(-1).values + 1e-9).all())
    assert bool((found >= values.mean(-1) - 1e-9).all())


def loss_of(heatmap: Tensor, mask: Tensor, **options) -> Tensor:
    return isnet.HeatmapLoss(1.0, 25.0, **options)(heatmap, mask)


@few
@given(
    st.integers(0, 2**32), st.integers(1, 3), st.integers(1, 3), st.floats(0.05, 0.95), st.sampled_from([0.5, 0.9, 1.0])
)
def test_the_loss_is_finite_and_cares_neither_for_signs_nor_for_the_order_of_images(
    seed, images, channels, share, decay
):
    generator = torch.Generator().manual_seed(seed)
    heatmap = torch.randn(images, 2, channels, 7, 7, generator=generator, dtype=torch.float64)
    mask = (torch.rand(images, 1, 7, 7, generator=generator) < share).double()
    mask[:, :, 0, 0], mask[:, :, 6, 6] = 0, 1
    found = loss_of(heatmap, mask, decay=decay, reduction="none")
    assert bool((found >= 0).all())
    assert bool(found.isfinite().all())
    torch.testing.assert_close(loss_of(-heatmap, mask, decay=decay, reduction="none"), found)
    torch.testing.assert_close(loss_of(heatmap.flip(0), mask.flip(0), decay=decay, reduction="none"), found.flip(0))
    turned = loss_of(heatmap.transpose(-1, -2), mask.transpose(-1, -2), decay=decay, reduction="none")
    torch.testing.assert_close(turned, found)


@few
@given(st.integers(0, 2**32), st.floats(1.5, 20))
def test_relevance_moved_to_the_background_costs_more(seed, factor):
    generator = torch.Generator().manual_seed(seed)
    heatmap = torch.rand(1, 1, 1, 6, 6, generator=generator, dtype=torch.float64) + 0.1
    mask = torch.zeros(1, 1, 6, 6, dtype=torch.float64)
    mask[..., 1:5, 1:5] = 1
    more = torch.where(mask[:, None] > 0, heatmap, factor * heatmap)
    background = {"w1": 1.0, "w2": 0.0}
    assert loss_of(more, mask, **background) > loss_of(heatmap, mask, **background)
    none = loss_of(heatmap * mask[:, None], mask, **background)
    assert none.item() == pytest.approx(0, abs=1e-6)
    assert loss_of(heatmap, mask, **background) > none
