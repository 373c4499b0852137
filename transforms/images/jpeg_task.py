"""The task that decodes pairs with JPEG data among them: its check is compiled code, which takes a second to import."""

# Here, where no record pays for it.
import transforms.images.jpeg_entropy  # noqa: F401
from transforms.images.decode_task import decode_records

__all__ = ["decode_records"]
