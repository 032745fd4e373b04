"""Images as responses, results as images: volumes, surfaces, grayordinates, nilearn's regions."""

from lmmjax.stream.images.images import Images, are_images, images_of
from lmmjax.stream.images.spaces import space_of

__all__ = ["Images", "are_images", "images_of", "space_of"]
