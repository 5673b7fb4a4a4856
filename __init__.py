"""ComfyUI-BIR: blind image restoration in ComfyUI."""

# ComfyUI imports this folder as a package. Other tools (pytest, an installer) may import this file
# on its own, where a relative import cannot work and is not needed.
if __package__:
    from .nodes import comfy_entrypoint

    WEB_DIRECTORY = "./nodes/web"

    __all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
