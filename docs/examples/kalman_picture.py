"""Draws how filters of kalman_tracker.py follow one side of a target.

python docs/examples/kalman_picture.py --sequence 3 --output kalman.png
"""

import argparse

import matplotlib.pyplot as plt
import numpy as np
from drawn_sequences import draw_sequence
from kalman_tracker import NOISES, Detected, detect, track

from gfocal import Predictor

SIDES = ("left", "top", "right", "bottom")


def draw_sides(detected: Detected, factors: dict[str, float], side: int, path: str) -> None:
    """Writes a picture of one side over time: truth, detections with bbox_std, filters.

    Args:
        detected: a sequence and its detections.
        factors: of some rows of NOISES, by name.
        side: 0..3, in the order of SIDES.
        path: of the picture.
    """
    sequence, detections = detected
    frames = np.arange(len(detections))
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    hidden = np.where(sequence.visible < 0.005, 0.35, np.where(sequence.visible < 1, 0.15, 0.0))
    for frame, alpha in enumerate(hidden):
        axes.axvspan(frame - 0.5, frame + 0.5, color="grey", alpha=alpha, linewidth=0)
    best = [(t, x[[int(x.scores.argmax())]]) for t, x in enumerate(detections) if len(x)]
    places = [x.pred_boxes.tensor[0, side].item() for _, x in best]
    stds = [x.pred_box_stds[0, side].item() for _, x in best]
    axes.errorbar(
        [t for t, _ in best], places, stds, fmt=".", color="0.45", label="detection ± bbox_std"
    )
    axes.plot(frames, sequence.boxes[:, side], "k", label="truth")
    for name, factor in factors.items():
        boxes = track(detections, NOISES[name], factor)
        axes.plot(frames, boxes[:, side], label=f"filter, {name}")
    axes.set(xlabel="frame; grey: hidden in part, dark: wholly", ylabel=f"{SIDES[side]} side, px")
    axes.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default="output/demo/model_final.pth")
    parser.add_argument("--sequence", type=int, default=0)
    parser.add_argument("--side", choices=SIDES, default="left")
    parser.add_argument("--factors", nargs="+", default=["constant=512", "bbox_std²=32"])
    parser.add_argument("--output", default="kalman.png")
    args = parser.parse_args()
    factors = {name: float(x) for name, _, x in (pair.rpartition("=") for pair in args.factors)}
    detected = detect(Predictor(args.weights), draw_sequence(0, args.sequence), confidence=0.3)
    draw_sides(detected, factors, SIDES.index(args.side), args.output)


if __name__ == "__main__":
    main()
