"""Miniatures of the layouts in which collections of photographs are published."""

import numpy as np
from PIL import Image
from published_layouts import put, table

GREYS = np.array([[0, 51, 102, 127], [128, 153, 204, 255]], np.uint8)


def save(values, path, mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(values, np.uint8))
    if mode == "P":
        image = Image.fromarray(np.asarray(values, np.uint8), mode="P")
        image.putpalette([value for index in range(256) for value in (255 - index, 7, index)])
    image.save(path)


def waterbirds(folder):
    names = [
        "001.Black_footed_Albatross/a_1.jpg",
        "001.Black_footed_Albatross/a_2.jpg",
        "002.Wren/w_3.jpg",
        "002.Wren/w_4.jpg",
    ]
    codes = ["1,0,1,/o/ocean/1.jpg", "1,1,0,/b/bamboo/2.jpg", "0,2,0,/b/bamboo/3.jpg", "0,0,1,/o/ocean/4.jpg"]
    rows = [f"{number},{name},{code}" for number, (name, code) in enumerate(zip(names, codes, strict=True), start=1)]
    table(folder / "metadata.csv", "img_id,img_filename,y,split,place,place_filename", *rows)
    put(folder, *names)
    for name in names[:3]:
        save(GREYS, folder / "segmentations" / f"{name[:-4]}.png")


def cub(folder):
    names = ["001.Black_footed_Albatross/a_1.jpg", "001.Black_footed_Albatross/a_2.jpg", "002.Wren/w_3.jpg"]
    lists = {
        "images": [f"{number} {name}" for number, name in enumerate(names, start=1)],
        "classes": ["1 001.Black_footed_Albatross", "2 002.Wren"],
        "image_class_labels": ["1 1", "2 1", "3 2"],
        "train_test_split": ["1 1", "2 0", "3 1"],
    }
    for name, (first, *rest) in lists.items():
        table(folder / f"{name}.txt", first, *rest)
    put(folder / "images", *names)
    save(GREYS, folder / "segmentations" / "002.Wren/w_3.png")


def oxford_pets(folder):
    table(folder / "annotations/trainval.txt", "# Image CLASS-ID SPECIES", "Abyssinian_100 1 1 1", "pug_3 27 2 20")
    table(folder / "annotations/test.txt", "great_pyrenees_7 16 2 11", "Bombay_9 8 1 4")
    put(folder / "images", "Abyssinian_100.jpg", "pug_3.jpg", "great_pyrenees_7.jpg")
    save([[2, 3, 1, 1], [2, 2, 3, 1]], folder / "annotations/trimaps/pug_3.png")


def leeds_butterflies(folder):
    put(folder / "images", "0010001.png", "0010002.png", "0100001.png")
    save([[0, 1, 2, 3]], folder / "segmentations/0010001_seg0.png", mode="P")


def folders(folder):
    put(folder / "cats", "a.jpg", "b.JPEG", "notes.txt")
    put(folder / "dogs", "a.png")
    save([[0, 255]], folder / "cats/a_mask.png")
    save([[0, 255]], folder / "masks/dogs/a.png")


def imagenet9(folder):
    put(folder / "original/train/00_dog", "n1_1.JPEG")
    put(folder / "original/val/00_dog", "fg_n1_2.JPEG")
    put(folder / "mixed_rand/val/02_wheeled vehicle", "fg_n2_bg_n1.JPEG")
    put(folder / "fg_mask/val/00_dog", "fg_n1_2.npy")


def spawrious(folder):
    # Of the easy challenge bulldogs are trained in the desert, and tested in dirt, where labradors are trained.
    for place, breed in (("desert", "bulldog"), ("dirt", "bulldog"), ("beach", "corgi"), ("dirt", "labrador")):
        put(folder / "spawrious224/0" / place / breed, f"{place}_{breed}_1.png")
    put(folder / "spawrious224/1/desert/bulldog", "desert_bulldog_2.png")


def birds_on_places(folder):
    """Waterbirds of two species in small: every bird and place in each split, a bird's place told by its colour."""
    rng, rows = np.random.default_rng(0), []
    kinds = [(bird, place, split) for split in range(3) for bird in range(2) for place in range(2)] * 4
    for number, (bird, place, split) in enumerate(kinds):
        name = f"{bird}.Species/{number:03}.png"
        image = rng.integers(0, 60, (40, 44, 3), dtype=np.uint8)
        image[..., 2 * place] += 100
        image[10:30, 10:30] = rng.integers(150, 256, (20, 20, 1))
        image[10 + 10 * bird : 20 + 10 * bird, 10:30] = 0
        save(image, folder / name)
        mask = np.zeros((40, 44))
        mask[10:30, 10:30] = 204
        save(mask, folder / "segmentations" / name)
        rows.append(f"{number},{name},{bird},{split},{place},x")
    table(folder / "metadata.csv", "img_id,img_filename,y,split,place,place_filename", *rows)


PHOTOGRAPHS = {
    layout.__name__: layout
    for layout in (waterbirds, cub, oxford_pets, leeds_butterflies, folders, imagenet9, spawrious)
}
