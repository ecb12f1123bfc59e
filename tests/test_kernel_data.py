"""The data that ships with the kernels is what kernels/data/README.md says."""

from __future__ import annotations

import hashlib

import numpy as np

from tracejit import config


def test_digits_are_the_published_test_set():
    with np.load(config.kernels_dir() / "data" / "digits.npz", allow_pickle=False) as file:
        images, labels = file["images"], file["labels"]
    assert (images.dtype, images.shape) == (np.uint8, (1797, 64))
    assert (labels.dtype, labels.shape) == (np.uint8, (1797,))
    assert images.max() == 16
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    digest = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
    assert digest == "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"
