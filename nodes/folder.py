"""A folder of pictures with their names, so that each result keeps the name it came with."""

import torch
from comfy_api.latest import io

from ..bir_core.images import to_channels_last
from ..bir_core.pictures.files import find_pictures, list_pictures, read_picture
from .host import services
from .host.node import Node


class BIRLoadFolder(Node):
    """The pictures of a folder, one after another, and their names."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BIRLoadFolder",
            display_name="Load Folder of Photos (BIR)",
            category="image",
            description=(
                "Loads all pictures of a folder one after another, of any sizes, with their names. "
                "Connect the names to the filename_prefix of Save Image, and every result keeps "
                "the name it came with."
            ),
            search_aliases=[
                *("load folder", "batch", "directory", "many photos", "file names", "bulk"),
                *("load images", "folder"),
            ],
            inputs=[
                io.Combo.Input(
                    "folder",
                    options=services.input_folders(),
                    tooltip="A folder below ComfyUI's input folder. Press R after you made one.",
                ),
                io.Boolean.Input(
                    "recursive",
                    default=False,
                    optional=True,
                    tooltip="On: with the folders inside it; names then have their folders before "
                    "them, and Save Image makes these again.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="images",
                    is_output_list=True,
                    tooltip="Each picture by itself, upright, in the order of the names; an alpha "
                    "channel is kept.",
                ),
                io.String.Output(
                    display_name="names",
                    is_output_list=True,
                    tooltip="The name of each picture without its ending, for the filename_prefix "
                    "of Save Image.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, folder: str, recursive: bool = False) -> object:
        paths, _ = find_pictures(services.input_folder(folder), recursive=recursive)
        return [(str(path), services.fingerprint(path)) for path in paths]

    @classmethod
    def execute(cls, folder: str, recursive: bool = False) -> io.NodeOutput:
        place = services.input_folder(folder)
        paths = list_pictures(place, recursive=recursive)
        images = []
        show = services.batch_progress(len(paths))
        for index, path in enumerate(paths):
            picture = read_picture(path)
            channels = [picture.image] if picture.alpha is None else [picture.image, picture.alpha]
            images.append(services.to_output(to_channels_last(torch.cat(channels, 1))))
            show(index)(1, 1)
        names = [path.relative_to(place).with_suffix("").as_posix() for path in paths]
        return io.NodeOutput(images, names)
