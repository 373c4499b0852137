"""Named choices of losses, after what people report."""

from dataclasses import dataclass

from transforms.losses.networks.specs import LPIPS_LAYERS


@dataclass(frozen=True)
class Preset:
    """A named choice of losses.

    Attributes:
        losses: names of losses.
        objective: their weighted sum, or empty.
        vgg_layers: the layers that `vgg_mse` and `style` compare.
    """

    losses: tuple[str, ...]
    objective: str = ""
    vgg_layers: tuple[str, ...] = LPIPS_LAYERS


PRESETS = {
    "default": Preset(("lpips_vgg", "ssim", "psnr", "gmsd", "sobel_l1", "fd_l1")),
    "sr": Preset(("psnr_y", "ssim_y", "lpips_alex")),
    "restoration": Preset(("psnr", "ssim", "lpips_alex")),
    "compression": Preset(("psnr", "ms_ssim", "lpips_alex")),
    "codecs": Preset(("psnr_y", "ssim_y", "ms_ssim", "ssimulacra2")),
    "generative": Preset(("psnr", "ssim", "lpips_alex", "dists")),
    "novel_view": Preset(("psnr", "ssim", "lpips_vgg", "lpips_alex")),
    "rendering": Preset(("psnr", "ssim", "flip")),
    "color": Preset(("psnr", "ssim", "ciede2000", "ciede2000_p95")),
    "edges": Preset(("sobel_l1",), "sobel_l1"),
    "features": Preset(("vgg_mse", "fd_l2"), "vgg_mse + 0.1*fd_l2"),
    "vgg_edges": Preset(("vgg_mse", "sobel_l2"), "vgg_mse + 0.05*sobel_l2", ("pool5",)),
}
