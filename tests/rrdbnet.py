"""BSRNet (RRDBNet, Zhang et al. 2021) as a checkpoint that spandrel loads."""

import json

import torch
from diffbir_models import Weights
from parity import fill_by_rule_w

SPANDREL_GROWTH = 32  # it knows no other


def shapes(nf, nb, gc):
    """Keys and shapes of the published layout."""
    convs = {"conv_first": (3, nf), "conv_last": (nf, 3)}
    convs |= dict.fromkeys(("trunk_conv", "upconv1", "upconv2", "HRconv"), (nf, nf))
    for block in range(nb):
        for dense in (1, 2, 3):
            for conv in range(1, 6):
                channels = (nf + (conv - 1) * gc, nf if conv == 5 else gc)
                convs[f"RRDB_trunk.{block}.RDB{dense}.conv{conv}"] = channels
    weights = {f"{name}.weight": (out, into, 3, 3) for name, (into, out) in convs.items()}
    return weights | {f"{name}.bias": (out,) for name, (_, out) in convs.items()}


def of_vectors(metadata, calm=True):
    """The small BSRNet of the vectors, its dense blocks widened by channels of zeros; `calm` as in
    those from end to end, with outputs mostly within [0, 1]."""
    sizes, base = json.loads(metadata["config_bsrnet"]), json.loads(metadata["rule_bases"])
    nf, nb, gc = sizes["nf"], sizes["nb"], sizes["gc"]
    state = Weights(shapes(nf, nb, gc))
    fill_by_rule_w(state, base["bsrnet"])
    if calm:
        state.weights["conv_last.weight"] *= 0.25
        state.weights["conv_last.bias"] += 0.5
    wide = {}
    for name, shape in shapes(nf, nb, SPANDREL_GROWTH).items():
        value = state.weights[name]
        wide[name] = torch.zeros(shape)
        if "RRDB" not in name or value.ndim == 1:
            wide[name][: len(value)] = value
            continue
        wide[name][: len(value), :nf] = value[:, :nf]
        for index in range((value.shape[1] - nf) // gc):
            ours, theirs = nf + index * gc, nf + index * SPANDREL_GROWTH
            wide[name][: len(value), theirs : theirs + gc] = value[:, ours : ours + gc]
    return wide
