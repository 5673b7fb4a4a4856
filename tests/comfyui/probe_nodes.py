"""Test-only nodes: put tensors of any shape into a graph, see exactly what comes out of it, and
stop the work at a place that no clock decides."""

import json
import os
import sys
import time

import comfy.model_management
import comfy.utils
import folder_paths
import numpy as np
import torch
from aiohttp import web
from comfy.patcher_extension import WrappersMP
from comfy_api.latest import ComfyExtension, io
from server import PromptServer

import nodes

# Every step of the progress is told: how many would be depends on the speed of the machine.
comfy.utils.PROGRESS_THROTTLE_MIN_INTERVAL = 0
comfy.utils.PROGRESS_THROTTLE_MIN_PERCENT = 0


class TestLoadTensor(io.ComfyNode):
    """An IMAGE or a MASK from a .npy file of the input folder."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TestLoadTensor",
            category="test",
            inputs=[io.String.Input("file")],
            outputs=[io.Image.Output(), io.Mask.Output()],
        )

    @classmethod
    def execute(cls, file):
        tensor = torch.from_numpy(np.load(os.path.join(folder_paths.get_input_directory(), file)))
        return io.NodeOutput(tensor, tensor)


class TestSaveTensor(io.ComfyNode):
    """Writes an IMAGE to the output folder with every bit, and its properties beside it."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TestSaveTensor",
            category="test",
            inputs=[io.Image.Input("image"), io.String.Input("file")],
            outputs=[],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, image, file):
        path = os.path.join(folder_paths.get_output_directory(), file)
        np.save(path, image.numpy())
        properties = {
            "dtype": str(image.dtype),
            "device": str(image.device),
            "contiguous": image.is_contiguous(),
        }
        with open(path + ".json", "w", encoding="utf-8") as stream:
            json.dump(properties, stream)
        return io.NodeOutput()


class TestUseRandomness(io.ComfyNode):
    """Disturbs the global random state, as any other node may, before its image goes on."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TestUseRandomness",
            category="test",
            inputs=[io.Image.Input("image"), io.Int.Input("seed", min=0, max=1000)],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, image, seed):
        torch.manual_seed(seed)
        torch.randn(7)
        return io.NodeOutput(image)


class TestDrawNoise(io.ComfyNode):
    """Random pixels from the global random state, once its input has come."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TestDrawNoise",
            category="test",
            inputs=[io.Image.Input("image")],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, image):
        return io.NodeOutput(torch.rand(1, 8, 8, 3))


class TestZeroConditioning(io.ComfyNode):
    """An empty prompt without a text encoder, with what Stable Diffusion XL is told besides."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TestZeroConditioning",
            category="test",
            inputs=[
                io.Float.Input("value", default=0.0, min=-10, max=10),
                io.Int.Input("channels", default=1024, optional=True),
            ],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, value, channels=1024):
        embedding = torch.linspace(-1, 1, 77 * channels).reshape(1, 77, channels) * value
        return io.NodeOutput([[embedding, {"pooled_output": embedding.flatten()[None, :1280]}]])


class TextEncoder:
    """Of the text "0.5" it makes what TestZeroConditioning makes of 0.5, of "0.5 0.5" that twice as
    long; of other texts by their length."""

    def tokenize(self, text):
        return text

    def encode_from_tokens_scheduled(self, text):
        try:
            values = [float(word) for word in text.split()]
        except ValueError:
            values = [len(text) / 100]
        embedding = torch.linspace(-1, 1, 77 * 1024).reshape(1, 77, 1024)
        return [[torch.cat([embedding * value for value in values or [0.0]], dim=1), {}]]


class TestTextEncoder(io.ComfyNode):
    """A CLIP without weights."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TestTextEncoder", category="test", inputs=[], outputs=[io.Clip.Output()]
        )

    @classmethod
    def execute(cls):
        return io.NodeOutput(TextEncoder())


class TestTexts(io.ComfyNode):
    """Texts as a list, as a captioner makes them, from JSON."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TestTexts",
            category="test",
            inputs=[io.String.Input("texts")],
            outputs=[io.String.Output(is_output_list=True)],
        )

    @classmethod
    def execute(cls, texts):
        return io.NodeOutput(json.loads(texts))


class TestPair(io.ComfyNode):
    """Two of anything as a list."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TestPair",
            category="test",
            inputs=[io.AnyType.Input("first"), io.AnyType.Input("second")],
            outputs=[io.AnyType.Output(is_output_list=True)],
        )

    @classmethod
    def execute(cls, first, second):
        return io.NodeOutput([first, second])


class TestMean(io.ComfyNode):
    """The mean of an image as a text: a captioner that takes one image at a time."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TestMean",
            category="test",
            inputs=[io.Image.Input("image")],
            outputs=[io.String.Output()],
        )

    @classmethod
    def execute(cls, image):
        assert len(image) == 1
        return io.NodeOutput(f"{image.mean().item():.3f}")


class TestText(io.ComfyNode):
    """A text that fits every socket, as those of switches do."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TestText",
            category="test",
            inputs=[io.String.Input("text")],
            outputs=[io.AnyType.Output()],
        )

    @classmethod
    def execute(cls, text):
        return io.NodeOutput(text)


class TestExpand(io.ComfyNode):
    """The nodes that Restore Photo becomes, as JSON, for inputs as JSON."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TestExpand",
            category="test",
            inputs=[io.String.Input("inputs")],
            outputs=[io.String.Output()],
        )

    @classmethod
    def execute(cls, inputs):
        kind = nodes.NODE_CLASS_MAPPINGS["BIRRestorePhoto"]
        given = json.loads(inputs)
        found = kind.execute(**given)
        told = {"result": found.args[0], "nodes": found.expand}
        return io.NodeOutput(json.dumps({**told, "fingerprint": kind.fingerprint_inputs(**given)}))


class TestMemoryLimit(io.ComfyNode):
    """A network whose convolutions run out of memory on maps of more than `limit` pixels, those of
    the batch together; 0 lifts the limit. The network is that of all nodes that use it; `part`
    names the module of it that is meant."""

    hooks: dict = {}

    @classmethod
    def define_schema(cls):
        networks = [io.Model, io.Vae, io.ControlNet, io.UpscaleModel]
        return io.Schema(
            node_id="TestMemoryLimit",
            category="test",
            inputs=[
                io.MultiType.Input("network", types=networks),
                io.Int.Input("limit", min=0, max=10**9),
                io.String.Input("part", default="", optional=True),
            ],
            outputs=[io.AnyType.Output()],
            not_idempotent=True,
        )

    @classmethod
    def execute(cls, network, limit, part=""):
        def check(layer, inputs):
            (x,) = inputs
            if x.shape[0] * x.shape[-2] * x.shape[-1] > limit:
                raise torch.OutOfMemoryError("CUDA out of memory (a test)")

        # The names under which ComfyUI keeps the modules of each kind.
        names = ("first_stage_model", "control_model", "model")
        module = next(getattr(network, name) for name in names if hasattr(network, name))
        module = module.get_submodule(part)
        for hook in TestMemoryLimit.hooks.pop(id(module), []):
            hook.remove()
        if limit:
            layers = [each for each in module.modules() if isinstance(each, torch.nn.Conv2d)]
            hooks = [layer.register_forward_pre_hook(check) for layer in layers]
            TestMemoryLimit.hooks[id(module)] = hooks
        return io.NodeOutput(network)


class TestReverseTiles(io.ComfyNode):
    """A model that takes the tiles of tiled sampling in the opposite order."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TestReverseTiles",
            category="test",
            inputs=[io.Model.Input("model")],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model):
        def reversed_order(executor, *args, **options):
            (tiling,) = (
                module for name, module in sys.modules.items() if name.endswith("bir_core.tiling")
            )
            in_order = tiling.tiles
            tiling.tiles = lambda *size: in_order(*size)[::-1]
            try:
                return executor(*args, **options)
            finally:
                tiling.tiles = in_order

        patched = model.clone()
        patched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "test", reversed_order)
        return io.NodeOutput(patched)


class TestHold(io.ComfyNode):
    """A network whose work stops at its call number `call` until the prompt is cancelled, and goes
    on then. Calls are those of the diffusion model, of other networks the convolutions.

    The message test_held says that it has stopped; /test_hold answers with the number of calls that
    began before and after cancel, and lifts the hold.
    """

    convolution = staticmethod(torch.nn.functional.conv2d)
    counts: dict = {}

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TestHold",
            category="test",
            inputs=[io.AnyType.Input("network"), io.Int.Input("call", min=1)],
            outputs=[io.AnyType.Output()],
            not_idempotent=True,
        )

    @classmethod
    def execute(cls, network, call):
        TestHold.counts = counts = {"before": 0, "after": 0}
        server = PromptServer.instance
        prompt_id = server.last_prompt_id
        cancelled = False

        def count():
            nonlocal cancelled
            if server.last_prompt_id != prompt_id:
                return  # void: its prompt has ended before this call
            counts["after" if cancelled else "before"] += 1
            if counts["before"] == call and not cancelled:
                server.send_sync("test_held", {}, server.client_id)
                while not comfy.model_management.processing_interrupted():
                    time.sleep(0.02)
                cancelled = True

        def counted(executor, *args, **options):
            count()
            return executor(*args, **options)

        if hasattr(network, "add_wrapper_with_key"):
            network = network.clone()
            network.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test", counted)
        else:
            torch.nn.functional.conv2d = lambda *args, **options: counted(
                TestHold.convolution, *args, **options
            )
        return io.NodeOutput(network)


@PromptServer.instance.routes.get("/test_hold")
async def lift_hold(_):
    torch.nn.functional.conv2d = TestHold.convolution
    return web.json_response(TestHold.counts)


class TestSaveLatent(io.ComfyNode):
    """Writes a LATENT to the output folder with every bit."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TestSaveLatent",
            category="test",
            inputs=[io.Latent.Input("latent"), io.String.Input("file")],
            outputs=[],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, latent, file):
        path = os.path.join(folder_paths.get_output_directory(), file)
        np.save(path, latent["samples"].numpy())
        return io.NodeOutput()


class TestFaces(io.ComfyNode):
    """What core's MediaPipe node sends, from the five landmarks of each face of each image, as JSON
    numbers (images, faces, 5, 2) in the order of our template.

    A mesh has its other vertices at one place. Boxes are lists of dicts for each image.
    """

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TestFaces",
            category="test",
            inputs=[
                io.Image.Input("image"),
                io.String.Input("landmarks"),
                io.String.Input("boxes"),
            ],
            outputs=[io.Custom("FACE_LANDMARKS").Output(), io.BoundingBox.Output("bboxes")],
        )

    @classmethod
    def execute(cls, image, landmarks, boxes):
        vertices = ((33, 133), (362, 263), (1,), (61,), (291,))
        frames = []
        for faces in json.loads(landmarks):
            frames.append([])
            for points in np.array(faces, np.float32):
                mesh = np.tile(points.mean(0), (478, 1))
                for point, places in zip(points, vertices, strict=True):
                    mesh[list(places)] = point
                corners = np.concatenate([mesh.min(0), mesh.max(0)])
                frames[-1].append(
                    {"bbox_xyxy": corners, "landmarks_xy": mesh, "presence": 9.0, "score": 0.9}
                )
        found = {
            "frames": frames,
            "image_size": tuple(image.shape[1:3]),
            "connection_sets": {"lips": frozenset({(61, 291)})},
        }
        names = ("x", "y", "width", "height")
        listed = [
            [{**dict(zip(names, box, strict=True)), "label": "face", "score": 0.9} for box in frame]
            for frame in json.loads(boxes)
        ]
        return io.NodeOutput(found, listed)


class TestExtension(ComfyExtension):
    async def get_node_list(self):
        return [
            TestLoadTensor,
            TestSaveTensor,
            TestUseRandomness,
            TestDrawNoise,
            TestZeroConditioning,
            TestSaveLatent,
            TestHold,
            TestText,
            TestTextEncoder,
            TestTexts,
            TestPair,
            TestMean,
            TestExpand,
            TestMemoryLimit,
            TestReverseTiles,
            TestFaces,
        ]


def comfy_entrypoint():
    return TestExtension()
