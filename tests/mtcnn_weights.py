"""Weights of MTCNN that see a face where the middle of a square is bright and its rim dark."""

import torch

from bir_core.checkpoints.files import write_tensors
from bir_core.faces.alignment import TEMPLATE
from bir_core.faces.mtcnn import MTCNN
from bir_core.models import MTCNN_FILES

# In units of the box.
LANDMARKS = TEMPLATE.float() / 512
MIDDLE = torch.full((3, 3), -1 / 8).index_put_(
    (torch.tensor(1), torch.tensor(1)), torch.tensor(1.0)
)
SLOPE = 20.0


def bright_face_network():
    """The cascade; what no bright spot needs is random, and has no effect."""
    torch.manual_seed(0)
    network = MTCNN()
    for part in (network.pnet, network.rnet, network.onet):
        for name, layer in part.named_children():
            if name.startswith("prelu"):
                layer.weight.data.fill_(1.0)
                continue
            layer.bias.data.zero_()
            layer.weight.data[0] = 0  # the first channel is the brightness
            if name.startswith("conv"):
                side = layer.kernel_size[0] // 2
                inputs = slice(None) if name == "conv1" else 0
                layer.weight.data[0, inputs, side, side] = 1 / 3 if name == "conv1" else 1
    network.pnet.conv3.weight.data[0, 0] = MIDDLE
    _heads(network.pnet.conv4_1, network.pnet.conv4_2)
    for dense, part in (("dense4", network.rnet), ("dense5", network.onet)):
        layer = getattr(part, dense)
        layer.weight.data[0] = 0
        layer.weight.data[0].view(3, 3, -1)[..., 0] = MIDDLE
    _heads(network.rnet.dense5_1, network.rnet.dense5_2)
    _heads(network.onet.dense6_1, network.onet.dense6_2)
    network.onet.dense6_3.weight.data.zero_()
    network.onet.dense6_3.bias.data.copy_(LANDMARKS.T.flatten())
    return network.eval().requires_grad_(False)


def _heads(score, correction):
    """A face from a contrast of 1 on, and boxes as they are."""
    score.weight.data.zero_()
    score.weight.data[1, 0] = SLOPE
    score.bias.data[1] = -SLOPE
    correction.weight.data.zero_()


def save_mtcnn(folder, network=None):
    """The files of `bir weights faces`."""
    network = network or bright_face_network()
    for part, file in MTCNN_FILES.items():
        state = network.get_submodule(part).state_dict()
        write_tensors(folder / file, state, "the weights", make_folder=True)


def picture_with_spots(height, width, *spots):
    """(1, 3, height, width), black, with white squares of a side around (x, y)."""
    image = torch.zeros(1, 3, height, width)
    for side, x, y in spots:
        image[..., y - side // 2 : y + side // 2, x - side // 2 : x + side // 2] = 1
    return image
