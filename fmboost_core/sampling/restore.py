"""Restoring: an upscaled image gets the small image's content back."""

from __future__ import annotations

import warnings
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import FMBoostWarning, ImageError
from ..fallback import with_fallback
from ..imaging.blur import blurred
from ..imaging.luma import luma
from ..imaging.match import Match, match
from ..imaging.resample import cover, resize
from ..tiles import NOT_TILEABLE, Tileable, with_margins, without_margins

EDGE = 0.2  # local standard deviation of the luma in [-1,1] at which half of the flow's change counts
GAIN = 2  # how often the flow's change counts away from edges, where it is texture
HALF = 4  # pixels of half a latent, by which rounding changes a side at most
BROAD = 2  # pixels of the small image around a pixel over which its broad colours are averaged


def back_projected(image: Tensor, small: Tensor, distort: bool = True, tileable: Tileable = NOT_TILEABLE) -> Tensor:
    """An upscaled image with the small image's content: whatever is coarse enough for the small image comes from it.

    It is one step of iterative back-projection (Irani and Peleg, 1991), image + U(small - R(image)), with U bicubic
    interpolation and R the reduction. More steps sharpen too much where the small image is sharp already. Beside an
    edge that the two draw differently, the step overshoots; so no pixel becomes lighter or darker than both of them are
    there (`_limited`).
    image: (B,3,H,W). small: (B,3,h,w). distort: as the image was upscaled (`Target.distorts`).
    tileable: the axes along which both images are.
    """
    size = (image.shape[-2], image.shape[-1])
    reduced, coarse, enlarged = _coarse_parts(image, small, distort, tileable)
    radius = round(BROAD * max(size[0] / reduced.shape[-2], size[1] / reduced.shape[-1]))
    margins = tileable.margins(radius + 1)
    wide = [with_margins(x, margins) for x in (image - coarse + enlarged, image, coarse, enlarged)]
    limited = with_fallback("the limit of restoring", partial(_limited, radius=radius), *wide)
    return without_margins(limited, margins)


def _coarse_parts(image: Tensor, small: Tensor, distort: bool, tileable: Tileable) -> tuple[Tensor, Tensor, Tensor]:
    """An image (B,3,H,W) reduced to the small image's scale; that, enlarged again; and the small image, enlarged."""
    size = (image.shape[-2], image.shape[-1])
    reduced = resize(image, _reduced(size, small, distort), tileable=tileable)
    enlarged = (resize if distort else cover)(small, size, "bicubic", tileable)
    return reduced, resize(reduced, size, "bicubic", tileable), enlarged


def each_back_projected(
    images: Tensor, small: Tensor, distort: bool = True, tileable: Tileable = NOT_TILEABLE
) -> Tensor:
    """`back_projected` for a batch, in [-1,1]. One by one: each takes a few times its own memory."""
    pairs = zip(images.split(1), small.split(1), strict=True)
    return torch.cat([back_projected(*pair, distort, tileable).clamp(-1, 1) for pair in pairs])


def recoloured(
    image: Tensor, small: Tensor, broad: bool, distort: bool = True, tileable: Tileable = NOT_TILEABLE
) -> Tensor:
    """An enlarged image (B,3,H,W) with the colours of the one it was made from (B,3,h,w), both in [-1,1].

    broad: whether it gets the broad colours, which a Gaussian of `BROAD` pixels of the small image leaves; otherwise
    the mean colour alone. distort: as the image was enlarged (`Target.distorts`). tileable: the axes along which both
    are.
    """

    def one(image: Tensor, small: Tensor) -> Tensor:
        height, width = image.shape[-2], image.shape[-1]
        lacks = (resize if distort else cover)(small, (height, width), tileable=tileable) - image
        ratio = max(height / small.shape[-2], width / small.shape[-1])
        lacks = blurred(lacks, BROAD * ratio, tileable) if broad else lacks.mean((2, 3), keepdim=True)
        return (image + lacks).clamp(-1, 1)

    return torch.cat([one(*pair) for pair in zip(image.split(1), small.split(1), strict=True)])


def _limited(restored: Tensor, image: Tensor, coarse: Tensor, enlarged: Tensor, radius: int) -> Tensor:
    """The restored image within the range of the upscaled image around each pixel and of the enlarged small one in it.

    The upscaled image counts with the small image's broad colours: `coarse` is its own content at the small image's
    scale, and what that lacks is averaged over a square of so many pixels around.
    """
    side = 2 * radius + 1
    lacks = F.avg_pool2d(enlarged - coarse, (side, 1), 1, (radius, 0), count_include_pad=False)
    broad = image + F.avg_pool2d(lacks, (1, side), 1, (0, radius), count_include_pad=False)
    most = torch.maximum(F.max_pool2d(broad, 3, 1, 1), enlarged)
    least = torch.minimum(-F.max_pool2d(-broad, 3, 1, 1), enlarged)
    return torch.minimum(torch.maximum(restored, least), most)


def _reduced(size: tuple[int, int], small: Tensor, distort: bool) -> tuple[int, int]:
    """The size (height, width) of an upscaled image that is reduced to the small image's scale."""
    if distort:
        return small.shape[-2], small.shape[-1]
    ratio = max(size[0] / small.shape[-2], size[1] / small.shape[-1])
    return max(1, round(size[0] / ratio)), max(1, round(size[1] / ratio))


def retouched(
    enlarged: Tensor, before: Tensor, after: Tensor, ratio: float, tileable: Tileable = NOT_TILEABLE
) -> Tensor:
    """An enlarged image with the texture that the flow draws: enlarged + `GAIN` * share * fine(D(made) - D(guide)).

    What the codec loses is lost in both decoded images, so that it cancels. Only the fine part of the change counts:
    the coarse part shifts colours. And less of it counts where the enlarged image has an edge, which the upscale model
    draws better.
    enlarged, before, after: the enlarged image, the decoded guide E(enlarged) and the decoded result; (B,3,H,W) in
    [-1,1].
    ratio: upscale factor. tileable: the axes along which the images are.
    """

    def one(enlarged: Tensor, change: Tensor) -> Tensor:
        """One by one: each takes a few times its own memory."""
        fine = change - blurred(change, BROAD * ratio, tileable)
        brightness = luma(enlarged)
        mean, square = (blurred(x, ratio, tileable) for x in (brightness, brightness.square()))
        contrast = (square - mean.square()).clamp(min=0)
        return (enlarged + GAIN * fine / (1 + contrast / EDGE**2)).clamp(-1, 1)

    return torch.cat(list(map(one, enlarged.split(1), (after - before).to(enlarged).split(1))))


def restored(images: Tensor, small: Tensor, look: bool = True, tileable: Tileable = NOT_TILEABLE) -> Tensor:
    """`back_projected` for decoded images (B,3,H,W) in [-1,1], with the small images (B or 1,3,h,w) they come from.

    Where the aspects differ by more than rounding, the large images count as cropped at the centre. look: warn where a
    small image shows something else than its large one. tileable: the axes along which both are. Raises `ImageError`
    for a small image that is larger, and for batches that do not go together.
    """
    (height, width), (low, narrow) = images.shape[-2:], small.shape[-2:]
    if low > height or narrow > width:
        raise ImageError(
            f"The small image is {narrow}x{low} and the large one {width}x{height}; connect them the other way round."
        )
    if small.shape[0] not in (1, images.shape[0]):
        raise ImageError(
            f"There are {images.shape[0]} large images and {small.shape[0]} small ones; give one small image, or one "
            "for each large one."
        )
    small = small.to(images.device).expand(images.shape[0], -1, -1, -1)
    distort = _shows_all(images, small)
    if look:
        _warn_of_others(images, small, distort)

    def one(large: Tensor, low: Tensor) -> Tensor:
        """In single precision: a CPU cannot resize in half, and hosts decode on the GPU and hand on to the CPU."""
        large, low = large.float().clamp(-1, 1), low.float().clamp(-1, 1)
        return back_projected(large, low, distort, tileable).clamp(-1, 1).to(images)

    # One by one: a batch may be a film, and each image takes a few times its own memory.
    return torch.cat(list(map(one, images.split(1), small.split(1))))


def _shows_all(images: Tensor, small: Tensor) -> bool:
    """Whether large images (B,3,H,W) show all of the small ones (B,3,h,w), and are not cropped to another aspect.

    The sides of a latent are rounded to whole latents, which changes the aspect too. So where both sides are of one
    scale to within half a latent, that of the two counts by which the first image fits better.
    """
    (height, width), (low, narrow) = images.shape[-2:], small.shape[-2:]
    if height * narrow == width * low or not len(images):
        return True
    if max((width - HALF) / narrow, (height - HALF) / low) > min((width + HALF) / narrow, (height + HALF) / low):
        return False

    def error(distort: bool) -> float:
        coarse, enlarged = _coarse_parts(images[:1].float(), small[:1].float(), distort, NOT_TILEABLE)[1:]
        difference = coarse - enlarged
        return float((difference - difference.mean((2, 3), keepdim=True)).square().mean())  # colours may differ

    return error(distort=True) <= error(distort=False)


def _warn_of_others(images: Tensor, small: Tensor, distort: bool) -> None:
    """Warn where small images (B,3,h,w) show something else than the large ones: restoring would leave a ghost."""
    size = _reduced((images.shape[-2], images.shape[-1]), small, distort)
    fit = resize if distort else cover
    pairs = zip(images.split(1), small.split(1), strict=True) if len(images) else ()
    found = [match(resize(large.float(), size), fit(low.float(), size)) for large, low in pairs]
    kinds: dict[Match, str] = {"other": "shows something else than", "displaced": "is another crop than"}
    for kind, what in kinds.items():
        count = found.count(kind)
        if count:
            where = f" in {count} of {len(found)} items" if len(found) > 1 else ""
            warnings.warn(
                f"The small image {what} the large one{where}, so the result shows both, one through the other; take "
                "the small image that the large one was made from.",
                FMBoostWarning,
                stacklevel=3,
            )
