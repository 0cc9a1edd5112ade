"""How well an autoencoder gives pictures back that it was not trained on, transparency included."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from kilonova.data.world.render import render
from kilonova.data.world.sampling import SceneConfig, sample_scene
from kilonova.evals.canvas.report import Score
from kilonova.evals.canvas.study import Study
from kilonova.evals.metrics import bootstrap_mean
from kilonova.models.autoencoder.model import ImageAutoencoder

PART = "reconstruction"
_SEED = 30_000
_BATCH = 16
_MAX_PSNR = 100.0


def psnr(found: np.ndarray, original: np.ndarray) -> float:
    """The peak signal-to-noise ratio in dB, at most 100, of two pictures uint8 `[H, W, 4]`.

    The squared error is the mean of that over black and that over white.
    """
    errors = [
        np.mean((_over(found, ground) - _over(original, ground)) ** 2, dtype=np.float64) for ground in (0.0, 255.0)
    ]
    share = max(float(np.mean(errors)) / 255**2, 10 ** (-_MAX_PSNR / 10))
    return float(-10 * np.log10(share))


def ssim(found: np.ndarray, original: np.ndarray) -> float:
    """The structural similarity (Wang et al. 2004, doi:10.1109/TIP.2003.819861) of two pictures uint8 `[H, W, 4]`.

    It is scikit-image's with the paper's normal window, averaged over channels, and over black and white grounds.
    """
    from skimage.metrics import structural_similarity

    values = [
        structural_similarity(
            _over(found, ground),
            _over(original, ground),
            data_range=255,
            channel_axis=-1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for ground in (0.0, 255.0)
    ]
    return float(np.mean(values))


@torch.no_grad()
def reconstruct(autoencoder: ImageAutoencoder, pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What an autoencoder makes of pictures uint8 `[H, W, 4]` of one size, in the same form."""
    device = next(autoencoder.parameters()).device
    result: list[np.ndarray] = []
    for start in range(0, len(pictures), _BATCH):
        stacked = torch.from_numpy(np.stack(pictures[start : start + _BATCH])).permute(0, 3, 1, 2)
        found = autoencoder.decode(autoencoder.encode(stacked.to(device).float() / 127.5 - 1))
        result += list(((found + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy())
    return result


def measure(study: Study) -> list[Score]:
    """PSNR and SSIM of held-back icons, where there are any, and of held-out scenes."""
    assert study.autoencoder is not None
    config = SceneConfig(split="held_out")
    scenes = [sample_scene((_SEED + study.seed, index), config) for index in range(study.limit)]
    sets = {"scenes": [render(scene, study.size).image for scene in scenes]}
    if study.icons is not None:
        sets["icons"] = [icon.picture for icon in study.icons.held_back[: study.limit]]
    metrics: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {"PSNR in dB": psnr, "SSIM": ssim}
    scores = []
    for name, pictures in sets.items():
        found = reconstruct(study.autoencoder, pictures)
        for original, picture in zip(pictures[:60], found, strict=False):
            study.gallery.add(PART, f"{name}: original", original)
            study.gallery.add(PART, "reconstructed", picture)
        for metric, compare in metrics.items():
            values = [compare(one, other) for one, other in zip(found, pictures, strict=True)]
            scores.append(Score.of(PART, f"{metric}, {name}", bootstrap_mean(values, study.seed), len(values)))
    return scores


def _over(picture: np.ndarray, ground: float) -> np.ndarray:
    alpha = picture[..., 3:].astype(np.float64) / 255
    return picture[..., :3] * alpha + ground * (1 - alpha)
