"""Fidelity of an image to its reference image: MSE, PSNR, SSIM, GMSD, HaarPSI; and of a latent: MSE.

Images are (1,3,H,W) floats in [-1,1]; `image_metrics.measure` checks them.
"""

# GMSD and HaarPSI are not piq's: piq 0.8.0 imports torchvision in its __init__, which evaluation needs for LPIPS alone.
# Its GMSD also divides by N where the authors' code divides by N - 1, and its HaarPSI of two black images is infinite.

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import LatentError
from ..imaging.luma import luma
from .optional import require_torchmetrics

_YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))
_GREATEST_PSNR = 120.0


def latent_mse(latent: Tensor, reference: Tensor) -> float:
    """Mean squared error of scaled latents (B,C,h,w), which have near unit variance."""
    if latent.shape != reference.shape:
        raise LatentError(
            f"The latent is {tuple(latent.shape)} and the reference latent {tuple(reference.shape)}; "
            "only equal shapes compare."
        )
    return F.mse_loss(latent.float(), reference.float()).item()


def mse(image: Tensor, reference: Tensor) -> float:
    """Mean squared error on the range [-1,1], as in the paper's Table 4."""
    return F.mse_loss(image, reference).item()


def psnr(image: Tensor, reference: Tensor) -> float:
    """Peak signal-to-noise ratio in dB; 120 for equal images, so that means stay finite."""
    functions = require_torchmetrics("functional.image")
    value = functions.peak_signal_noise_ratio(image, reference, data_range=2.0).item()
    return min(_GREATEST_PSNR, value)


def ssim(image: Tensor, reference: Tensor) -> float:
    """Structural similarity of the three channels, Gaussian window of 11 (Wang et al. 2004); 1 for equal images."""
    functions = require_torchmetrics("functional.image")
    return functions.structural_similarity_index_measure(image, reference, data_range=2.0).item()


def gmsd(image: Tensor, reference: Tensor) -> float:
    """Gradient magnitude similarity deviation (Xue et al. 2013), 0 for equal images, up to about 0.35."""
    a, b = (_gradient(_halved(luma(_to_bytes(x)))) for x in (image, reference))
    return _similarity(a, b, 170.0).std().item()


def haarpsi(image: Tensor, reference: Tensor) -> float:
    """Haar wavelet-based perceptual similarity index in colour (Reisenhofer et al. 2018), 0 to 1 for equal images."""
    a, b = (_channels(_halved(_to_bytes(x.double())), _YIQ) for x in (image, reference))
    (y, true_y), (tint, true_tint) = ((x[:, :1] for x in (a, b)), (_haar_mean(x[:, 1:]) for x in (a, b)))
    fine, middle = (_similarity(_haar(y, size), _haar(true_y, size), 30.0) for size in (2, 4))
    tints = _similarity(tint, true_tint, 30.0).mean(1, keepdim=True)
    weights = torch.maximum(_haar(y, 8), _haar(true_y, 8))
    weights = torch.cat([weights, weights.mean(1, keepdim=True)], dim=1)
    if not weights.any():
        return 1.0  # two black images
    mean = (torch.sigmoid(4.2 * torch.cat([(fine + middle) / 2, tints], dim=1)) * weights).sum() / weights.sum()
    return (torch.logit(mean) / 4.2).square().item()


def _similarity(a: Tensor, b: Tensor, constant: float) -> Tensor:
    return (2 * a * b + constant) / (a * a + b * b + constant)


def _to_bytes(image: Tensor) -> Tensor:
    """[-1,1] -> [0,255], the range of both papers' constants."""
    return (image + 1) * 127.5


def _channels(image: Tensor, weights: tuple[tuple[float, ...], ...]) -> Tensor:
    """(B,3,H,W) to one channel for each row of weights."""
    matrix = torch.tensor(weights, dtype=image.dtype, device=image.device)
    return F.conv2d(image, matrix[..., None, None])


def _halved(image: Tensor) -> Tensor:
    """Means of 2x2 pixels, with zeros beyond an odd edge as in both papers' code."""
    return F.avg_pool2d(F.pad(image, (0, image.shape[-1] % 2, 0, image.shape[-2] % 2)), 2)


def _gradient(y: Tensor) -> Tensor:
    """Prewitt's gradient magnitude of (B,1,H,W)."""
    ramp = torch.tensor([1.0, 0.0, -1.0], dtype=y.dtype, device=y.device).expand(3, 3) / 3
    return F.conv2d(y, torch.stack([ramp, ramp.T])[:, None], padding=1).square().sum(1, keepdim=True).sqrt()


def _haar(y: Tensor, size: int) -> Tensor:
    """Magnitudes (B,2,H,W) of the vertical and the horizontal Haar wavelet of a size on (B,1,H,W)."""
    step = torch.ones(size, size, dtype=y.dtype, device=y.device) / size
    step[: size // 2] *= -1
    before, after = size // 2 - 1, size // 2
    return F.conv2d(F.pad(y, (before, after, before, after)), torch.stack([step, step.T])[:, None]).abs()


def _haar_mean(x: Tensor) -> Tensor:
    return F.avg_pool2d(F.pad(x, (0, 1, 0, 1)), 2, stride=1).abs()
