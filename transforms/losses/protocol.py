"""The protocol of a run: what is done to both images of a pair before any loss. Free of TensorFlow."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from transforms.settings import setting


@dataclass(frozen=True)
class Protocol:
    """The preparation of both images of a pair before any loss. Numbers of different protocols do not compare.

    Attributes:
        crop_border: pixels cut from each side of both images.
        gt_mean: whether each generated image is scaled to the mean of its target, after the cut; see `mean_matching`.
        masked: whether every pair has a mask, outside of which no pixel counts; cut like the images.

    Raises:
        ValueError: `crop_border` is negative, or not a whole number.
    """

    crop_border: int = setting(
        "cut this many pixels from each side of both images before any loss; 4 for x4 super-resolution", 0
    )
    gt_mean: bool = setting(
        "scale each generated image to the mean gray of its target before any loss, as low-light papers do", False
    )
    # It follows from --mask and --mask_field.
    masked: bool = False

    def __post_init__(self) -> None:
        if not hasattr(self.crop_border, "__index__") or self.crop_border < 0:
            raise ValueError(f"crop_border must be a whole number, 0 or more, not {self.crop_border}")

    @classmethod
    def of_run(cls, identity: Mapping[str, Any]) -> "Protocol":
        """From the `identity` of run.json. Runs of earlier versions lack settings that are off by default."""
        return cls(**{field.name: identity[field.name] for field in fields(cls) if field.name in identity})

    def inside(self, images: Any) -> Any:
        """The images [B, H, W, ...], an array or a tensor, without the border."""
        border = self.crop_border
        return images[:, border:-border, border:-border] if border else images

    def described(self, formula: str, maskable: bool = True) -> str:
        """The formula of a loss, and what is done to both images before.

        Args:
            formula: of the loss.
            maskable: whether the loss can leave out what is outside of a mask.
        """
        parts = [formula]
        parts += [f"without {self.crop_border} pixels at each border"] * bool(self.crop_border)
        parts += ["generated scaled to the mean gray of its target"] * self.gt_mean
        parts += ["over the pixels in the mask" if maskable else "null, because no mask can be applied"] * self.masked
        return "; ".join(parts)
