"""The face detector and the face parser of the official DiffBIR, from facexlib and local files, and
MTCNN as another detector."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoints.completeness import require_sound, weight_differences
from ..checkpoints.files import read_checkpoint
from ..checkpoints.keys import unwrap
from ..errors import BIRError
from ..fallbacks import Attempt, first_that_fits
from ..images import resize
from ..models import DETECTOR_FILE, MTCNN_FILES, PARSER_FILE, file_named
from .mtcnn import MTCNN

# A picture (1, 3, H, W) in [0, 1] -> landmarks (N, 5, 2) in its pixels, as `faces.TEMPLATE`
DetectFaces = Callable[[Tensor], Tensor]
# A face (1, 3, 512, 512) in [0, 1] -> the class of each pixel (1, 512, 512), 0 to 18
ParseFace = Callable[[Tensor], Tensor]

SOURCE = file_named(DETECTOR_FILE).source
LEAST_DETECTION_SIDE = 640
LEAST_SCORE, MOST_OVERLAP = 0.97, 0.4
# More than the paper's 0.7, at which cloth and cables are faces too.
MTCNN_CONFIDENCE = 0.95
# What RetinaFace was trained with: blue, green, red of 0 to 255, less these.
CHANNEL_MEANS = torch.tensor([104.0, 117.0, 123.0])


def load_face_detector(folder: str | Path, *, device: torch.device | str = "cpu") -> DetectFaces:
    """RetinaFace (Deng et al. 2020) with a ResNet-50, from `detection_Resnet50_Final.pth` in a
    folder. Nothing is downloaded.

    The picture is enlarged to a short side of 640. The official code hands red and blue over in
    each other's place; here they are right. Faces come best first.

    Raises:
        BIRError: facexlib is not installed, or the file is missing or another one.
    """
    file = _file(folder, DETECTOR_FILE)
    from kornia.geometry.bbox import nms  # here, as every command would start later by it

    try:
        from facexlib.detection.retinaface import RetinaFace
        from facexlib.detection.retinaface_utils import PriorBox, decode, decode_landm
    except (ImportError, RuntimeError) as error:
        raise _no_facexlib(error) from error

    with warnings.catch_warnings():
        # facexlib names its backbone in a way that torchvision calls old.
        warnings.simplefilter("ignore", UserWarning)
        network = _loaded(RetinaFace(network_name="resnet50", device="cpu"), file).to(device)
    config: dict[str, Any] = network.cfg  # type: ignore[assignment]

    def detect_at(image: Tensor, scale: float) -> Tensor:
        height, width = (max(1, int(side * scale)) for side in image.shape[-2:])
        x = resize(image.to(device, torch.float32), height, width, "bilinear").clamp(0, 1)
        outputs = network(255 * x.flip(1) - CHANNEL_MEANS.to(x)[:, None, None])
        boxes, scores, places = (output[0].float().cpu() for output in outputs)
        priors = PriorBox(config, image_size=(height, width)).forward()
        boxes = decode(boxes, priors, config["variance"])
        places = decode_landm(places, priors, config["variance"])
        found = scores[:, 1] > LEAST_SCORE
        boxes, scores, places = boxes[found], scores[found, 1], places[found]
        # Boxes and landmarks are in units of the picture's sides.
        size = torch.tensor([image.shape[-1], image.shape[-2]])
        chosen = nms(boxes * size.repeat(2), scores, MOST_OVERLAP)
        return places[chosen].reshape(-1, 5, 2) * size

    @torch.no_grad()
    def detect(image: Tensor) -> Tensor:
        smallest = LEAST_DETECTION_SIDE / min(image.shape[-2:])

        def attempts() -> Iterator[Attempt[Tensor]]:
            scale = max(1.0, smallest)
            while True:
                words = "looking for faces in a smaller copy of the picture"
                yield words, partial(detect_at, image, scale)
                if scale <= smallest:
                    break
                scale = max(scale / 2, smallest)

        return first_that_fits(
            attempts(),
            f"The face detector should have memory for a short side of {LEAST_DETECTION_SIDE} "
            "pixels, but even that did not fit; close other programs or use another device.",
        )

    return detect


def load_face_parser(folder: str | Path, *, device: torch.device | str = "cpu") -> ParseFace:
    """ParseNet (of the CelebAMask-HQ classes) from `parsing_parsenet.pth` in a folder. Nothing is
    downloaded. Here too the official code confuses red and blue.

    Raises:
        BIRError: facexlib is not installed, or the file is missing or another one.
    """
    file = _file(folder, PARSER_FILE)
    try:
        from facexlib.parsing.parsenet import ParseNet
    except (ImportError, RuntimeError) as error:
        raise _no_facexlib(error) from error
    network = _loaded(ParseNet(in_size=512, out_size=512, parsing_ch=19), file).to(device)

    @torch.no_grad()
    def parse(face: Tensor) -> Tensor:
        scores, _ = network(2 * face.to(device, torch.float32) - 1)
        return scores.argmax(1)

    return parse


def read_mtcnn(files: Mapping[str, Path]) -> MTCNN:
    """MTCNN with its published weights.

    Args:
        files: for each key of `MTCNN_FILES` what `bir weights faces` wrote.

    Raises:
        BIRError: a file is absent or another one.
    """
    network = MTCNN()
    for part in MTCNN_FILES:
        file = files[part]
        if not file.is_file():
            raise BIRError(
                f"Expected a network of MTCNN at {file}, but there is no file; run "
                "`bir weights faces`, which fetches them."
            )
        weights, own = unwrap(read_checkpoint(file)), network.get_submodule(part)
        weight_differences(own.state_dict(), weights).require_none(f"{file} (MTCNN)")
        require_sound(own.state_dict(), weights, f"{file} (MTCNN)")
        own.load_state_dict(weights)
    return network.eval().requires_grad_(False)


def mtcnn_detector(network: MTCNN) -> DetectFaces:
    """MTCNN, on its device, as a detector of faces; they come surest first."""
    device = next(network.parameters()).device

    @torch.no_grad()
    def detect(image: Tensor) -> Tensor:
        return network(image.to(device, torch.float32), confidence=MTCNN_CONFIDENCE)[2].cpu()

    return detect


def _file(folder: str | Path, name: str) -> Path:
    file = Path(folder) / name
    if not file.is_file():
        raise BIRError(
            f"Expected the file {name} in {folder}, but it is not there; get it from {SOURCE}, "
            "nothing is downloaded by itself."
        )
    return file


def _no_facexlib(error: Exception) -> BIRError:
    reason = str(error).splitlines()[0]
    return BIRError(
        "Expected the package facexlib for faces in whole photos, but it cannot be imported "
        f"({reason}); install the extra: pip install comfyui-bir[faces]."
    )


def _loaded(network: nn.Module, file: Path) -> nn.Module:
    weights = unwrap(read_checkpoint(file))
    require_sound(network.state_dict(), weights, f"{file} ({type(network).__name__})")
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise BIRError(
            f"Expected the weights of {type(network).__name__} in {file}, but they do not fit "
            f"({str(error).splitlines()[1].strip()[:120]}); get the file from {SOURCE}."
        ) from error
    return network.eval().requires_grad_(False)
