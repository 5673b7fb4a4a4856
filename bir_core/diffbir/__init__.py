"""DiffBIR outside ComfyUI: a restoration module removes the degradation, then Stable Diffusion,
steered by IRControlNet, brings detail back."""
