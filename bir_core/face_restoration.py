"""The old place of `faces.pipeline`."""

from .faces.pipeline import require_photo_version, restore_photo

__all__ = ["require_photo_version", "restore_photo"]
