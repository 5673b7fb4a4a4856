"""Pictures to train on, made from nothing: smooth shapes with edges."""

import numpy as np
from PIL import Image


def write_pictures(folder, count=4, size=(72, 96), seed=0):
    """Write `count` PNG files and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    paths = []
    for index in range(count):
        waves = [
            np.sin(rows / random.uniform(2, 9) + columns / random.uniform(2, 9) + c)
            for c in range(3)
        ]
        image = np.stack(waves, axis=-1)
        image[rows > columns] *= -0.7
        paths.append(folder / f"picture_{index}.png")
        Image.fromarray(((image + 1) * 127.5).astype(np.uint8)).save(paths[-1])
    return paths
