"""The versions of DiffBIR and what belongs to each."""

from typing import Literal

Task = Literal["sr", "denoise", "face"]
Version = Literal["v1", "v2", "v2.1"]
# "enlarge_first": to the output size, then to a short side of 512, then the network (SwinIR).
# "network_enlarges": the network sees the original, its output is brought to size (BSRNet).
# "restore_first": to the output size, then the network, then to a short side of 512 (SCUNet).
Order = Literal["enlarge_first", "network_enlarges", "restore_first"]


def official_order(task: Task, version: Version) -> Order:
    """What the official code does: by the module it uses for a task of a version."""
    if version == "v2" and task == "sr":
        return "network_enlarges"
    if version == "v2" and task == "denoise":
        return "restore_first"
    return "enlarge_first"
