"""`bir restore --method diffbir --task unaligned_face`, on networks with random weights."""

import pytest
import torch
from command_line import run_here
from diffbir_models import TINY_SWINIR, filled, tiny_networks
from face_weights import save_face_weights
from mtcnn_weights import picture_with_spots, save_mtcnn
from safetensors.torch import save_file

from bir_core.checkpoints import load_model, save_checkpoint
from bir_core.diffbir.pipeline import DiffBIR
from bir_core.diffbir.settings import DiffBIRSettings
from bir_core.faces.networks import load_face_detector
from bir_core.faces.pipeline import restore_photo
from bir_core.models import DETECTOR_FILE, PARSER_FILE
from bir_core.networks.swinir import SwinIR
from bir_core.pictures.files import Picture, read_picture, write_picture

SETTINGS = {"steps": 1, "sampler": "euler", "cfg": 1.0, "short_side": 0}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faces")
    networks = tiny_networks()
    for name, network in networks.items():
        save_checkpoint(network, folder / f"{name}.safetensors")
    save_checkpoint(filled(SwinIR(TINY_SWINIR), 5000), folder / "swinir.safetensors")
    save_checkpoint(filled(SwinIR(TINY_SWINIR), 6000), folder / "face_swinir.safetensors")
    save_file({"embedding": torch.zeros(1, 77, 32)}, folder / "empty.safetensors")
    save_face_weights(folder)
    spots = torch.rand(1, 1, 6, 7, generator=torch.Generator().manual_seed(0))
    image = torch.nn.functional.interpolate(spots, (80, 100), mode="bilinear").expand(-1, 3, -1, -1)
    write_picture(folder / "photo.png", Picture(image=image, is_grey=True))
    return folder


def command(files, output, *more, task="unaligned_face", faces=True):
    options = {
        "base": files / "sd_unet.safetensors",
        "vae": files / "sd_vae.safetensors",
        "controlnet": files / "ir_controlnet.safetensors",
        "stage1": files / "swinir.safetensors",
        "prompt-embedding": files / "empty.safetensors",
        "version": "v2.1",
        "task": task,
        "upscale": 2,
        **SETTINGS,
    }
    if faces:
        options |= {"face-stage1": files / "face_swinir.safetensors", "face-weights": files}
    arguments = [
        text for name, value in options.items() for text in (f"--{name.replace('_', '-')}", value)
    ]
    return run_here(
        "restore", files / "photo.png", output, "--method", "diffbir", *arguments, *more
    )


@pytest.fixture(scope="module")
def square(files):
    """The picture with the squares of its faces pasted."""
    ran = command(files, files / "square.png", "--seed", 4, "--face-mask", "square")
    assert ran.returncode == 0, ran.stderr
    assert "100x80 -> 200x160" in ran.stdout
    return read_picture(files / "square.png")


def test_equals_the_function(files, square):
    networks = {
        name: load_model(files / f"{name}.safetensors", architecture=name)
        for name in ("sd_unet", "sd_vae", "ir_controlnet")
    }
    background, faces = (
        DiffBIR(**networks, stage1=load_model(files / f"{name}.safetensors"), version="v2.1")
        for name in ("swinir", "face_swinir")
    )
    expected = restore_photo(
        read_picture(files / "photo.png").image,
        torch.zeros(1, 77, 32),
        background=background,
        faces=faces,
        detect=load_face_detector(files),
        upscale_by=2.0,
        settings=DiffBIRSettings(**SETTINGS),
        seed=4,
    )
    assert square.is_grey
    luma = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    assert (square.image[:, :1] - (luma * expected).sum(1, keepdim=True)).abs().max() <= 0.6 / 255


def test_parser_is_used_unless_the_square_is_asked_for(files, square, tmp_path, monkeypatch):
    def nothing_but_background(network, face):
        scores = torch.zeros(1, 19, *face.shape[-2:])
        scores[:, 0] = 1
        return scores, face

    # The network itself, which takes seconds for a face, has a test of its own.
    parsenet = pytest.importorskip("facexlib.parsing.parsenet")
    monkeypatch.setattr(parsenet.ParseNet, "forward", nothing_but_background)
    ran = command(files, tmp_path / "parsed.png", "--seed", 4)
    assert ran.returncode == 0, ran.stderr
    plain = command(files, tmp_path / "plain.png", "--seed", 4, task="sr", faces=False)
    assert plain.returncode == 0, plain.stderr
    parsed, plain = (read_picture(tmp_path / f"{name}.png").image for name in ("parsed", "plain"))
    assert torch.equal(parsed, plain)
    change = (square.image - plain).abs()
    assert change.max() > 0.02 and change[..., :60].max() == 0


@pytest.mark.parametrize(
    ("more", "options", "sentence"),
    [
        (("--version", "v1"), {}, "Expected DiffBIR v2 or v2.1"),
        ((), {"faces": False}, "Expected --face-stage1 for --task unaligned_face"),
        (("--face-stage1", "x.pth"), {"faces": False}, "Expected --face-weights for --task"),
        (("--face-stage1", "absent.pth"), {}, "found nothing"),
        ((), {"task": "sr"}, "--task unaligned_face with --face-stage1"),
        (("--face-mask", "square"), {"task": "face", "faces": False}, "with --face-mask"),
        (("--face-weights", "absent"), {}, f"{DETECTOR_FILE} in absent"),
    ],
)
def test_bad_input(files, tmp_path, more, options, sentence):
    ran = command(files, tmp_path / "out.png", *more, **options)
    assert ran.returncode == 2
    assert sentence in ran.stderr and ran.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_files_are_found_by_their_names(files, square, tmp_path):
    models = tmp_path / "models"
    for name, target in (
        ("face_swinir.safetensors", "upscale_models/face_swinir_v1.safetensors"),
        (DETECTOR_FILE, f"facexlib/{DETECTOR_FILE}"),
        (PARSER_FILE, f"facexlib/{PARSER_FILE}"),
    ):
        (models / target).parent.mkdir(parents=True, exist_ok=True)
        (models / target).symlink_to(files / name)
    more = ("--seed", 4, "--face-mask", "square", "--models", models)
    ran = command(files, tmp_path / "found.png", *more, faces=False)
    assert ran.returncode == 0, ran.stderr
    assert torch.equal(read_picture(tmp_path / "found.png").image, square.image)
    (models / "facexlib" / DETECTOR_FILE).unlink()
    ran = command(files, tmp_path / "again.png", *more, faces=False)
    assert ran.returncode == 2 and "the releases of facexlib" in ran.stderr


def test_absent_parser_is_said(files, tmp_path):
    (tmp_path / DETECTOR_FILE).symlink_to(files / DETECTOR_FILE)
    ran = command(files, tmp_path / "out.png", "--face-weights", tmp_path)
    assert ran.returncode == 2 and PARSER_FILE in ran.stderr
    assert not (tmp_path / "out.png").exists()


def test_mtcnn_needs_nothing_of_facexlib(files, tmp_path, monkeypatch):
    """From torch's cache, and from the folder of the option."""
    spotted, cache = tmp_path / "spotted", tmp_path / "cache"
    spotted.mkdir()
    for file in files.glob("*.safetensors"):
        (spotted / file.name).symlink_to(file)
    photo = picture_with_spots(80, 100, (16, 50, 40))
    write_picture(spotted / "photo.png", Picture(image=photo, is_grey=False))
    monkeypatch.setenv("TORCH_HOME", str(cache))

    def restored(name, *more, **options):
        ran = command(spotted, tmp_path / name, "--seed", 4, *more, **options)
        return ran, (read_picture(tmp_path / name).image if ran.returncode == 0 else None)

    stage1 = ("--face-stage1", files / "face_swinir.safetensors")
    mtcnn = (*stage1, "--face-detector", "mtcnn", "--face-mask", "square")
    ran, _ = restored("absent.png", *mtcnn, faces=False)
    assert ran.returncode == 2 and "run `bir weights faces`" in ran.stderr
    save_mtcnn(cache / "hub")
    ran, cached = restored("cached.png", *mtcnn, faces=False)
    assert ran.returncode == 0, ran.stderr
    (cache / "hub").rename(tmp_path / "elsewhere")
    _, named = restored("named.png", *mtcnn, "--face-weights", tmp_path / "elsewhere", faces=False)
    _, plain = restored("plain.png", task="sr", faces=False)
    assert torch.equal(cached, named)
    assert torch.equal(cached[..., :10, :10], plain[..., :10, :10])
    assert (cached - plain).abs().max() > 0.05
    ran, _ = restored("parsed.png", *stage1, "--face-detector", "mtcnn", faces=False)
    assert ran.returncode == 2 and "--face-weights" in ran.stderr
