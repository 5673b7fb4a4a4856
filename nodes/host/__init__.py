"""Everything private of ComfyUI, which promises it no stability, so only these files touch it."""
