"""What a detector says of sides behind a band: error and `bbox_std`. Needs filterpy.

The detector is that of `make demo`, the sequences are those of kalman_tracker.py.

    python docs/examples/hidden_sides.py --weights output/demo/model_final.pth
"""

import argparse
from itertools import pairwise

import numpy as np
from drawn_sequences import SIZE, draw_sequence
from kalman_tracker import Detected, detect, nearest

from gfocal import Predictor

SHARES = (1.01, 1.0, 0.75, 0.5, 0.0)  # of the target that is visible; a row between two of them


def found_sides(detected: Detected) -> list[list[float]]:
    """The detection nearest to the whole target, in frames where part of it is visible.

    Returns:
        rows of 6: visible share; score; error and bbox_std of the side towards the band; mean
        error and bbox_std of the three others. Errors are absolute, in px.
    """
    sequence, rows = detected[0], []
    for found, box, visible in zip(detected[1], sequence.boxes, sequence.visible):
        boxes = found.pred_boxes.tensor.numpy()
        i = nearest(boxes, box)
        if i is None or visible == 0:
            continue
        error, std = np.abs(boxes[i] - box), found.pred_box_stds[i].numpy()
        at_band = 0 if box[0] + box[2] > SIZE else 2  # left or right
        others = np.arange(4) != at_band
        sides = error[at_band], std[at_band], error[others].mean(), std[others].mean()
        rows.append([visible, found.scores[i].item(), *sides])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default="output/demo/model_final.pth")
    parser.add_argument("--sequences", type=int, default=40)
    args = parser.parse_args()
    predictor = Predictor(args.weights)
    sequences = (draw_sequence(0, i) for i in range(args.sequences))
    rows = np.array([x for s in sequences for x in found_sides(detect(predictor, s, 0.3))])
    print("| visible | detections | score | side at the band: error | std | others: error | std |")
    print("|---|---|---|---|---|---|---|")
    for upper, lower in pairwise(SHARES):
        part = rows[(rows[:, 0] >= lower) & (rows[:, 0] < upper)]
        name = "all" if lower == 1 else f"{100 * lower:.0f} to {100 * upper:.0f} %"
        cells = [f"{x:.2f}" for x in np.median(part[:, 1:], axis=0)]
        print("|", " | ".join([name, str(len(part)), *cells]), "|")


if __name__ == "__main__":
    main()
