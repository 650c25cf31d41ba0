"""Draws how filters of kalman_tracker.py follow one side of a target. Needs filterpy.

python docs/examples/kalman_picture.py --output kalman.png
"""

import argparse

import matplotlib.pyplot as plt
from drawn_sequences import draw_sequence
from kalman_tracker import NOISES, Detected, detect, track
from matplotlib.axes import Axes

from gfocal import Predictor

SIDES = ("left", "top", "right", "bottom")


def draw_side(axes: Axes, detected: Detected, factors: dict[str, float], side: int) -> None:
    """Draws one side over time: truth, detections with bbox_std, filters.

    Args:
        detected: a sequence and its detections.
        factors: of some rows of NOISES, by name.
        side: 0..3, in the order of SIDES.
    """
    sequence, detections = detected
    for frame, visible in enumerate(sequence.visible):
        if visible < 1:
            alpha = 0.15 if visible > 0 else 0.35
            axes.axvspan(frame - 0.5, frame + 0.5, color="grey", alpha=alpha, linewidth=0)
    best = [(t, x[[int(x.scores.argmax())]]) for t, x in enumerate(detections) if len(x)]
    places = [x.pred_boxes.tensor[0, side].item() for _, x in best]
    stds = [x.pred_box_stds[0, side].item() for _, x in best]
    label = "best detection ± bbox_std"
    axes.errorbar([t for t, _ in best], places, stds, fmt=".", color="0.45", label=label)
    axes.plot(sequence.boxes[:, side], "k", label="truth")
    for name, factor in factors.items():
        axes.plot(track(detections, NOISES[name], factor)[:, side], label=f"filter, {name}")
    axes.set(xlabel="frame", ylabel=f"{SIDES[side]} side, px", xlim=(-0.5, len(detections) - 0.5))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default="output/demo/model_final.pth")
    parser.add_argument("--panels", nargs="+", default=["3:left", "1:right"], help="SEQUENCE:SIDE")
    parser.add_argument("--factors", nargs="+", default=["constant=512", "bbox_std^2=16"])
    parser.add_argument("--output", default="kalman.png")
    args = parser.parse_args()
    predictor = Predictor(args.weights)
    factors = {name: float(x) for name, _, x in (pair.rpartition("=") for pair in args.factors)}
    size = (10, 4.2 * len(args.panels))
    figure, rows = plt.subplots(len(args.panels), figsize=size, layout="constrained", squeeze=False)
    for axes, panel in zip(rows.flat, args.panels):
        sequence, _, side = panel.partition(":")
        detected = detect(predictor, draw_sequence(0, int(sequence)), confidence=0.3)
        draw_side(axes, detected, factors, SIDES.index(side))
        axes.set_title(f"sequence {sequence}; grey: hidden in part, dark grey: wholly")
    rows[0, 0].legend()
    figure.savefig(args.output, dpi=100)


if __name__ == "__main__":
    main()
