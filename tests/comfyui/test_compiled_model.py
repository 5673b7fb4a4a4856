"""ComfyUI's own node that compiles a MODEL, before ours."""

from typing import Any

import numpy as np
import pytest
from comfyui.diffbir_graph import one_node, restored
from comfyui.harness import Server, node


@pytest.mark.parametrize(
    "options",
    [{}, {"tile_size": 64, "overlap": 32, "guidance": 0.02, "rescale_cfg": True}],
    ids=["whole", "tiled"],
)
def test_a_compiled_model_goes_through_the_sampler(
    diffbir_server: Server, options: dict[str, Any]
) -> None:
    """The backend needs no compiler, and on a CPU records nothing: the network is traced all the
    same, with our control and our patches around it."""
    image = np.random.default_rng(5).random((1, 64, 128, 3), dtype=np.float32)
    plain = restored(diffbir_server, one_node(diffbir_server, image, **options))
    prompt = one_node(diffbir_server, image, **options)
    prompt["compile"] = node("TorchCompileModel", model=["model", 0], backend="cudagraphs")
    prompt["sample"]["inputs"]["model"] = ["compile", 0]
    compiled = restored(diffbir_server, prompt)
    np.testing.assert_allclose(compiled, plain, rtol=0, atol=1e-4)
