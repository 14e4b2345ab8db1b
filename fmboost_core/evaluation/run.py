"""The loop over a comparison's photographs: make each method's image, measure it, keep the figures."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import ImageError
from ..metrics.image_metrics import measure
from .artifacts import REFERENCE, SHEET_ROWS, Artifacts
from .comparison import Comparison
from .results import Results

SAVE_SECONDS = 10.0


def run(
    comparison: Comparison,
    results: Results,
    metrics: Sequence[str],
    artifacts: Artifacts,
    progress: Callable[[int, int], None],
) -> None:
    """Measure what the results lack, photograph by photograph; an interrupted run keeps what it has.

    A photograph that cannot be read or compared is skipped and noted. progress(done, total) counts photographs.
    """
    evaluator = _Evaluator(comparison, results, metrics, artifacts)
    saved = time.monotonic()
    try:
        for number, (name, path) in enumerate(comparison.photos.items(), start=1):
            try:
                results.add(name, evaluator.figures(name, path, in_sheet=number <= SHEET_ROWS))
            except ImageError as error:
                results.skipped[name] = str(error)
            if time.monotonic() - saved > SAVE_SECONDS:
                results.save()
                saved = time.monotonic()
            progress(number, len(comparison.photos))
    finally:
        results.save()


@dataclass(frozen=True)
class _Evaluator:
    comparison: Comparison
    results: Results
    metrics: Sequence[str]
    artifacts: Artifacts

    @torch.no_grad()
    def figures(self, name: str, path: Path, in_sheet: bool) -> Mapping[str, Mapping[str, float]]:
        """The figures of the methods that lack this photograph; in_sheet: keep crops for the contact sheet."""
        artifacts = self.artifacts
        missing = [
            m for m in self.comparison.methods if not (self.results.has(m, name) and artifacts.complete(m, name))
        ]
        if not missing:
            return {}
        reference, images = self.comparison.open(path)
        reference = reference.float().cpu()
        if not artifacts.complete(REFERENCE, name):
            artifacts.keep_features(REFERENCE, name, reference)
        if in_sheet:
            artifacts.keep_crop(REFERENCE, name, reference, reference)
        found: dict[str, dict[str, float]] = {}
        for method in missing:
            image, figures = images[method]()
            image = image.float().cpu()  # metrics run on the CPU, so that devices agree
            rated = artifacts.models.rate(image, path)
            found[method] = {**figures, **measure(image, reference, self.metrics), **rated}
            artifacts.keep_features(method, name, image)
            if in_sheet:
                artifacts.keep_crop(method, name, image, reference)
        return found
