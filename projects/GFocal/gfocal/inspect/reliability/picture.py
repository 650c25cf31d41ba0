"""reliability.png: the curves of a report, under titles that say what they show."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullLocator

from ..pictures import SIDE_COLORS, render

__all__ = ["draw_reliability"]

_BLUE, _GREY, _LIGHT, _ORANGE = "#0072B2", "0.55", "0.85", "#D55E00"
_IDEAL: dict[str, Any] = {"color": "0.3", "linestyle": "--", "linewidth": 1}
_FEW = 10  # detections; means of fewer say little, and are drawn hollow


def draw_reliability(
    metrics: Mapping[str, float], curves: Mapping[str, Any], title: str = ""
) -> np.ndarray:
    """Draws scores against overlap with the truth; and, if the detections have standard deviations,
    these against the error, the coverage of intervals, and the error of the surest sides.

    Args:
        metrics, curves: of :func:`gfocal.inspect.reliability.measuring.measure` and ``curves_of``.
        title: above all; the name of the dataset.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    has_sides = "sides" in curves
    figure = Figure(figsize=(13, 11) if has_sides else (6.6, 5.8), dpi=100, layout="constrained")
    number, matched = (int(metrics[x]) for x in ("detections", "matched"))
    figure.suptitle(f"{title}: {number} detections, {matched} of them right", fontsize=13)
    axes = figure.subplots(2, 2).ravel() if has_sides else [figure.subplots()]
    _draw_scores(axes[0], metrics, curves["scores"])
    if has_sides:
        _draw_errors(axes[1], metrics, curves["sides"])
        _draw_coverage(axes[2], metrics, curves["coverage"], curves.get("coverage_bins"))
        _draw_sparsification(axes[3], metrics, curves["sparsification"])
    for x in axes:
        x.grid(True, which="major", color="0.9", linewidth=0.7)
        x.set_axisbelow(True)
        for side in ("top", "right"):
            x.spines[side].set_visible(False)
    return render(figure)


def _draw_scores(axes: Axes, metrics: Mapping[str, float], bins: Mapping[str, np.ndarray]) -> None:
    counts, scores = bins["counts"], bins["scores"]
    filled = np.flatnonzero(counts)
    many = filled[counts[filled] >= _FEW] if (counts >= _FEW).any() else filled
    if len(many):
        best = many[np.abs(scores[many] - 0.8).argmin()]
        axes.set_title(
            f"Boxes that score {scores[best]:.2f} overlap the truth by {bins['ious'][best]:.2f} "
            f"on average\n(LaECE {metrics['LaECE']:.3f}, D-ECE {metrics['DECE']:.3f})"
        )
    else:
        axes.set_title("There are no detections")
    axes.plot([0, 1], [0, 1], label="as it should be: score = overlap", **_IDEAL)
    axes.plot(scores[filled], bins["ious"][filled], color=_BLUE, label="overlap (IoU), 0 if wrong")
    axes.plot(
        scores[filled],
        bins["precision"][filled],
        color=_ORANGE,
        label="precision: part that is right",
    )
    for name, color in (("ious", _BLUE), ("precision", _ORANGE)):
        few = np.setdiff1d(filled, many)
        axes.plot(scores[many], bins[name][many], "o", color=color, markersize=6)
        axes.plot(scores[few], bins[name][few], "o", color=color, mfc="white", markersize=6)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="score", ylabel="overlap, precision")
    _draw_histogram(axes, counts)
    handles = [*axes.get_legend_handles_labels()[0], Patch(color=_LIGHT, label="detections")]
    axes.legend(handles=handles, loc="upper left", fontsize=9, framealpha=0.9)


def _draw_histogram(axes: Axes, counts: np.ndarray) -> None:
    """How many detections have which score, along the lower edge."""
    below = axes.twinx()
    edges = np.linspace(0, 1, len(counts) + 1)
    below.bar(edges[:-1], counts, np.diff(edges), align="edge", color=_LIGHT)
    below.set_ylim(0, 6 * max(counts.max(initial=0), 1))
    below.set_yticks([])
    for side in ("top", "right"):
        below.spines[side].set_visible(False)
    axes.set_zorder(below.get_zorder() + 1)  # the curves before the bars
    axes.patch.set_visible(False)


def _draw_errors(
    axes: Axes, metrics: Mapping[str, float], groups: Mapping[str, np.ndarray]
) -> None:
    stds, errors = (np.maximum(groups[x], 1e-3) for x in ("stds", "errors"))
    axes.set_title(
        f"Sides with a standard deviation of {stds[0]:.2g} px are off by {errors[0]:.2g} px on "
        f"average,\nthose with {stds[-1]:.2g} px by {errors[-1]:.2g} px"
    )
    both = np.concatenate([stds, errors])
    limits = np.array([both.min() / 1.5, both.max() * 1.5])
    # The mean of a Laplace distribution's |error|, see central_half_width.
    ideal = limits / math.sqrt(2)
    axes.plot(limits, ideal, label="as far off as it says: 0.71 standard deviations", **_IDEAL)
    axes.plot(stds, errors, "o-", color=_BLUE, label="mean |error|; each dot has as many sides")
    axes.set(xscale="log", yscale="log", xlim=limits, ylim=limits)
    axes.set(xlabel="standard deviation of a side, px", ylabel="mean |error| of these sides, px")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_locator(NullLocator())
    axes.legend(loc="upper left", fontsize=9)
    axes.text(
        0.98,
        0.03,
        f"rank correlation {metrics['std_spearman']:.2f}",
        transform=axes.transAxes,
        ha="right",
        fontsize=10,
    )


def _draw_coverage(
    axes: Axes,
    metrics: Mapping[str, float],
    coverage: Mapping[str, np.ndarray],
    of_bins: Mapping[str, np.ndarray] | None,
) -> None:
    axes.set_title(
        f"Intervals meant to hold 80 % of the true sides hold {100 * metrics['coverage80']:.0f} %"
    )
    levels = 100 * coverage["levels"]
    axes.plot(
        [0, 100], [0, 100], label="as it should be (above: too careful, below: too sure)", **_IDEAL
    )
    for name, color in zip(("left", "top", "right", "bottom"), SIDE_COLORS):
        axes.plot(levels, 100 * coverage[name], color=color, label=name)
        if of_bins is not None:
            axes.plot(levels, 100 * of_bins[name], color=color, linestyle=":", linewidth=1.5)
    if of_bins is not None:
        axes.plot([], [], color="0.3", label="solid: by standard deviation")
        axes.plot([], [], color="0.3", linestyle=":", label="dotted: by distribution")
    axes.set(xlim=(0, 100), ylim=(0, 100))
    axes.set(xlabel="what the interval is meant to hold, %", ylabel="what it holds, %")
    axes.legend(loc="lower right", fontsize=9)


def _draw_sparsification(
    axes: Axes, metrics: Mapping[str, float], curve: Mapping[str, np.ndarray]
) -> None:
    removed, by_std, by_error = (curve[x] for x in ("removed", "by_std", "by_error"))
    half = np.abs(removed - 0.5).argmin()
    axes.set_title(
        f"The surer half of the sides has {100 * by_std[half]:.0f} % of the mean error "
        f"(at best {100 * by_error[half]:.0f} %)"
    )
    axes.plot([0, 100], [100, 100], label="if it said nothing", **_IDEAL)
    axes.plot(100 * removed, 100 * by_std, color=_BLUE, label="ordered by standard deviation")
    axes.plot(100 * removed, 100 * by_error, color=_GREY, label="ordered by the error itself")
    axes.fill_between(100 * removed, 100 * by_error, 100 * by_std, color=_BLUE, alpha=0.1)
    axes.set(xlim=(0, 100), ylim=(0, None))
    axes.set(
        xlabel="most uncertain sides taken away, %", ylabel="mean |error| of the rest, % of all"
    )
    axes.legend(loc="lower left", fontsize=9)
    axes.text(
        0.98,
        0.9,
        f"area between: AUSE {metrics['AUSE']:.2f}",
        transform=axes.transAxes,
        ha="right",
        fontsize=10,
    )
