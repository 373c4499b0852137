"""The layers of VGG16 by name: what the launcher can check without TensorFlow."""

from collections.abc import Collection

LAYERS = tuple(
    layer
    for block, convolutions in enumerate((2, 2, 3, 3, 3), start=1)
    for layer in (*(f"relu{block}_{number}" for number in range(1, convolutions + 1)), f"pool{block}")
)

# The five that LPIPS compares, shallowest first.
LPIPS_LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")


def smallest_side(layers: Collection[str]) -> int:
    """Height and width in pixels below which the deepest of the layers would have no pixel left."""
    return max(2 ** (int(layer[4]) - (layer.startswith("relu"))) for layer in layers)
