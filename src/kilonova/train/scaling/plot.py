"""The picture of a scaling study."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.figure import Figure

from kilonova.train.scaling.study import StudyResult

_COLOURS = ("#2f6db3", "#e08b2c", "#3f9c6b", "#8c5fb0", "#b0413e", "#5b5f66", "#c2a23a", "#3aa6b9")


def draw_study(result: StudyResult) -> bytes:
    """A PNG: loss against tokens for each size with the fitted law, and loss against compute with its frontier."""
    figure = Figure(figsize=(13, 5.2), layout="constrained", dpi=120)
    by_tokens, by_flops = figure.subplots(1, 2, sharey=True)
    law, held_out = result.law, result.held_out
    everything = [*result.points, held_out]
    tokens = np.geomspace(min(p.tokens for p in everything) / 1.3, max(p.tokens for p in everything) * 1.3, 100)
    sizes = sorted({p.parameters for p in everything})
    for size, colour in zip(sizes, _COLOURS * len(sizes), strict=False):
        label = f"{size / 1e6:.2g} M parameters"
        points = [p for p in result.points if p.parameters == size]
        by_tokens.plot(tokens, [law.loss(size, t) for t in tokens], color=colour, linewidth=1, alpha=0.7)
        by_tokens.plot([p.tokens for p in points], [p.loss for p in points], "o", color=colour, label=label)
        by_flops.plot([p.flops for p in points], [p.loss for p in points], "o-", color=colour, linewidth=0.8)
    flops = np.geomspace(min(p.flops for p in everything) / 1.5, max(p.flops for p in everything) * 1.5, 100)
    frontier = [law.loss(*law.optimal(f)) for f in flops]
    by_flops.plot(flops, frontier, "--", color="#5b5f66", label="best the law allows for the compute")
    for axes, x in ((by_tokens, held_out.tokens), (by_flops, held_out.flops)):
        low, high = result.predicted_interval
        error = [[max(result.predicted - low, 0)], [max(high - result.predicted, 0)]]
        axes.errorbar([x], [result.predicted], error, fmt="D", color="black", mfc="none", capsize=4, label="predicted")
        axes.plot([x], [held_out.loss], "*", color="black", markersize=13, label="held-out run, measured")
        axes.set_xscale("log")
        axes.grid(alpha=0.25)
        axes.legend(fontsize=8)
    by_tokens.set_xlabel("training tokens")
    by_flops.set_xlabel("training FLOPs")
    by_tokens.set_ylabel("validation loss, nats a token")
    figure.suptitle(
        f"L = {law.irreducible:.2f} + {law.parameter_scale:.3g} / N^{law.alpha:.2f} "
        f"+ {law.token_scale:.3g} / D^{law.beta:.2f}"
    )
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()
