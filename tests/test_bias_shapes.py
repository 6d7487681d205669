"""The pattern corner_shape: what it draws, where it may lie, and what it refuses."""

import numpy as np
import pytest

from isnet_bench.data import bias
from isnet_bench.io.errors import BenchError

SIDE = 48
CORNERS = {"upper left": (0, 0), "upper right": (0, -1), "lower right": (-1, -1), "lower left": (-1, 0)}


def shapes(size=8, classes=3, side=SIDE):
    return bias.make_marks(bias.Bias("corner_shape", 1.0, size), classes, side)


def corner(array, name, size):
    """The square in a corner of (..., H, W)."""
    rows, columns = (slice(None, size) if end == 0 else slice(-size, None) for end in CORNERS[name])
    return array[..., rows, columns]


def blank(number):
    """Grey images without foreground."""
    return np.full((number, 1, SIDE, SIDE), 90, np.uint8), np.zeros((number, 1, SIDE, SIDE), np.uint8)


@pytest.mark.parametrize("size", [6, 7, 8, 13, 24])
def test_circle_triangle_and_square_in_the_upper_left_corner(size):
    circle, triangle, square = corner(shapes(size).levels, "upper left", size) > 0
    for shape in (circle, triangle, square):
        np.testing.assert_array_equal(shape, shape[:, ::-1])
        # A black margin tells it from bright surroundings.
        assert not shape[[0, -1]].any()
        assert not shape[:, [0, -1]].any()
    np.testing.assert_array_equal(circle, circle.T)
    np.testing.assert_array_equal(square, square[::-1])
    assert (square >= circle).all()
    assert (square >= triangle).all()
    assert (np.diff(triangle.sum(1)[triangle.any(1)]) >= 0).all()
    assert triangle.sum(1).max() > triangle.sum(1)[triangle.any(1)].min()
    for one, other in ((circle, triangle), (circle, square), (triangle, square)):
        assert (one != other).sum() >= 0.1 * square.sum()


def test_marks_of_all_classes_cover_the_same_square():
    marks = shapes(8)
    covered = np.zeros((SIDE, SIDE), bool)
    covered[:8, :8] = True
    assert (marks.covers == covered).all()
    assert marks.sides == (0, 0)


def test_marks_replace_the_corner_and_nothing_else():
    images, masks = blank(6)
    which = np.arange(6) % 3
    marked = bias.apply(images, masks, shapes(8), which)
    np.testing.assert_array_equal(marked[:, 0, :8, :8], shapes(8).levels[which][:, :8, :8])
    marked[:, :, :8, :8] = 90
    np.testing.assert_array_equal(marked, images)
    assert (images == 90).all()


@pytest.mark.parametrize(
    ("occupied", "expected"),
    [
        ([], "upper left"),
        (["upper left"], "upper right"),
        (["upper left", "upper right"], "lower right"),
        (["upper left", "upper right", "lower right"], "lower left"),
        (["upper right", "lower left"], "upper left"),
    ],
)
def test_marks_move_to_the_first_free_corner(occupied, expected):
    images, masks = blank(3)
    for name in occupied:
        # One pixel, at the edge of the square farthest from the corner: enough, whatever the shape.
        square = corner(masks, name, 8)
        square[..., {0: -1, -1: 0}[CORNERS[name][0]], {0: -1, -1: 0}[CORNERS[name][1]]] = 1
    marked = bias.apply(images, masks, shapes(8), np.arange(3))
    np.testing.assert_array_equal(corner(marked, expected, 8)[:, 0], shapes(8).levels[:, :8, :8])
    assert ((marked != images).sum((1, 2, 3)) <= 64).all()
    assert (marked == images)[masks > 0].all()


def test_each_image_has_a_corner_of_its_own():
    images, masks = blank(4)
    masks[1, :, 3, 3] = masks[3, :, :8, :] = 1
    marked = bias.apply(images, masks, shapes(8), np.zeros(4, int))
    for image, name in zip(marked, ["upper left", "upper right", "upper left", "lower right"], strict=True):
        assert (corner(image, name, 8) != 90).all()
        assert (image != 90).sum() == 64


def test_no_free_corner_is_an_error():
    images, masks = blank(3)
    masks[1:, :, :8, :] = masks[1:, :, -8:, :] = 1
    with pytest.raises(BenchError, match=r"marks touch the foreground of 2 images; lower bias\.size"):
        bias.apply(images, masks, shapes(8), np.arange(3))
    masks[2, :, 7] = masks[1, :, -8] = 0
    with pytest.raises(BenchError, match="marks touch the foreground of 2 images"):
        bias.apply(images, masks, shapes(8), np.arange(3))
    assert (bias.apply(images, 0 * masks, shapes(8), np.arange(3)) != images).any()


def test_more_classes_than_shapes_are_refused():
    with pytest.raises(
        BenchError, match=r"corner_shape has 3 shapes \(circle, triangle, square\), and the data have 4"
    ):
        shapes(classes=4)
    assert shapes(classes=2).levels.shape == (2, SIDE, SIDE)


@pytest.mark.parametrize("size", [1, 5])
def test_too_small_shapes_are_refused(size):
    with pytest.raises(ValueError, match=f"size must be at least 6 pixels for the pattern corner_shape, not {size}"):
        bias.Bias("corner_shape", 1.0, size)
    assert bias.Bias("border_pixel", 1.0, size).size == size


def test_too_large_shapes_are_refused():
    with pytest.raises(BenchError, match=r"shapes of 25 pixels in the corners of 48 overlap; lower bias\.size"):
        shapes(25)
