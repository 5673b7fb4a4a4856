"""SCUNet (Zhang et al. 2022) as a checkpoint that spandrel loads."""

WINDOW = 8
HEAD_DIM = 32


def _block(name, dim):
    """A convolution branch and a transformer branch of half the channels each."""
    half = dim // 2
    table = 2 * WINDOW - 1
    trans = f"{name}.trans_block"
    shapes = {f"{trans}.msa.relative_position_params": (half // HEAD_DIM, table, table)}
    linears = {"msa.embedding_layer": (3 * half, half), "msa.linear": (half, half)}
    linears |= {"mlp.0": (4 * half, half), "mlp.2": (half, 4 * half)}
    for linear, shape in linears.items():
        shapes |= {f"{trans}.{linear}.weight": shape, f"{trans}.{linear}.bias": shape[:1]}
    for norm in ("ln1", "ln2"):
        shapes |= {f"{trans}.{norm}.weight": (half,), f"{trans}.{norm}.bias": (half,)}
    for conv in ("conv1_1", "conv1_2"):
        shapes |= {f"{name}.{conv}.weight": (dim, dim, 1, 1), f"{name}.{conv}.bias": (dim,)}
    for conv in ("conv_block.0", "conv_block.2"):
        shapes[f"{name}.{conv}.weight"] = (half, half, 3, 3)
    return shapes


def shapes(blocks=4, dim=64):
    """Keys and shapes of the published layout: `blocks` in each of the seven stages."""
    found = {"m_head.0.weight": (dim, 3, 3, 3), "m_tail.0.weight": (3, dim, 3, 3)}
    for level in (1, 2, 3):
        width = dim << (level - 1)
        for index in range(blocks):
            found |= _block(f"m_down{level}.{index}", width)
            found |= _block(f"m_up{level}.{index + 1}", width)
        found[f"m_down{level}.{blocks}.weight"] = (2 * width, width, 2, 2)
        found[f"m_up{level}.0.weight"] = (2 * width, width, 2, 2)
    for index in range(blocks):
        found |= _block(f"m_body.{index}", 8 * dim)
    return found
