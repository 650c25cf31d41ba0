"""`bbox_std` as the measurement noise of a Kalman filter: the error with and without.

A target crosses drawn sequences, behind a band that hides it for some frames; the detector is that
of `make demo`. Each kind of noise has one factor, tuned on sequences of its own. Needs filterpy.

    python docs/examples/kalman_tracker.py --weights output/demo/model_final.pth
"""

import argparse
from collections.abc import Callable

import numpy as np
import torch
from detectron2.structures import Instances
from drawn_sequences import Sequence, draw_sequence, errors
from filterpy.common import Q_discrete_white_noise
from filterpy.kalman import KalmanFilter

from gfocal import Predictor
from gfocal.data.shapes import CLASSES
from gfocal.inspect import detect_with_distributions

Noise = Callable[[Instances], np.ndarray]  # M detections -> variances (M, 4) of their sides
Detected = tuple[Sequence, list[Instances]]  # detections of the target's class, a frame each
FACTORS = 2.0 ** np.arange(-2, 17)


def unsure_part(x: Instances) -> np.ndarray:
    """(M, 4) px²: variances of the sides, less what sure sides have, plus 1.

    A side between two bins needs probability in both, however sure the detector is. If its mean
    lies a part f of a bin after the first, that alone has the variance f (1 - f), in bins². All
    bins are of one width.
    """
    bins = torch.arange(x.bin_edges.shape[-1])
    step = (x.bin_edges[..., 1] - x.bin_edges[..., 0]).abs()  # px
    mean = (x.pred_box_distributions * bins).sum(-1)
    variance = (x.pred_box_distributions * (bins - mean[..., None]) ** 2).sum(-1)
    least = (mean - mean.floor()) * (mean.ceil() - mean)
    return ((variance - least).clamp(min=0) * step**2 + 1).numpy()


NOISES: dict[str, Noise] = {
    "constant": lambda x: np.ones((len(x), 4)),
    "1 - score": lambda x: np.outer(1 - x.scores, np.ones(4)),
    "(1 - score)^2": lambda x: np.outer((1 - x.scores) ** 2, np.ones(4)),
    "bbox_std^2": lambda x: x.pred_box_stds.numpy() ** 2,
    "bbox_std^2, unsure part": unsure_part,
    "unsure part * (1 - score)^2": lambda x: unsure_part(x) * (1 - x.scores.numpy()[:, None]) ** 2,
}


def side_filter(box: np.ndarray) -> KalmanFilter:
    """A filter of the four sides and their velocities, with a constant velocity in mind."""
    kalman = KalmanFilter(dim_x=8, dim_z=4)
    kalman.x[:4, 0] = box
    kalman.F += np.eye(8, k=4)  # a side moves by its velocity
    kalman.H = np.eye(4, 8)  # sides are measured
    kalman.P = np.diag([4.0**2] * 4 + [3.0**2] * 4)
    kalman.Q = Q_discrete_white_noise(2, var=0.06**2, block_size=4, order_by_dim=False)
    return kalman


def track(detections: list[Instances], noise: Noise, factor: float) -> np.ndarray:
    """Follows one target by the detections of its class in T frames.

    Returns:
        (T, 4) boxes; nan before the first detection.

    Raises:
        ValueError: there is no detection.
    """
    boxes, kalman = np.full((len(detections), 4), np.nan), None
    for frame, found in enumerate(detections):
        measured, variances = found.pred_boxes.tensor.numpy(), noise(found)
        if kalman is not None:
            kalman.predict()
            i = nearest(measured, kalman.x[:4, 0])
            if i is not None:
                kalman.update(measured[i], R=factor * np.diag(variances[i]))
        elif len(found):
            kalman = side_filter(measured[found.scores.argmax()])
        if kalman is not None:
            boxes[frame] = kalman.x[:4, 0]
    if kalman is None:
        raise ValueError(f"none of {len(boxes)} frames has a detection of the target's class")
    return boxes


def nearest(boxes: np.ndarray, box: np.ndarray) -> int | None:
    """Whose centre is nearest to that of ``box``, if within its diagonal."""
    distances = np.hypot(*(boxes[:, :2] + boxes[:, 2:] - box[:2] - box[2:]).T / 2)
    gate = np.hypot(*(box[2:] - box[:2]))
    return int(distances.argmin()) if (distances < gate).any() else None


def last_detection(detections: list[Instances]) -> np.ndarray:
    """(T, 4) the best detection of each frame, or that of the frame before: no filter."""
    boxes, box = [], np.full(4, np.nan)
    for found in detections:
        if len(found):
            box = found.pred_boxes.tensor[found.scores.argmax()].numpy()
        boxes.append(box)
    return np.stack(boxes)


def detect(predictor: Predictor, sequence: Sequence, confidence: float) -> Detected:
    """A sequence with its detections of the target's class."""
    frames = []
    for image in sequence.images:
        inputs = [predictor.preprocess(image[:, :, ::-1])]
        found = detect_with_distributions(predictor.model, inputs)[0]["instances"].to("cpu")
        right = (found.pred_classes == sequence.label) & (found.scores > confidence)
        frames.append(found[right])
    return sequence, frames


def judge(noise: Noise, factor: float, sequences: list[Detected]) -> np.ndarray:
    """(sequences, 5) errors."""
    return np.array([errors(track(found, noise, factor), truth) for truth, found in sequences])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default="output/demo/model_final.pth")
    parser.add_argument("--sequences", type=int, default=40, help="to tune on, and to judge on")
    parser.add_argument("--confidence", type=float, default=0.3, help="the least score that counts")
    args = parser.parse_args()
    predictor = Predictor(args.weights)
    if tuple(predictor.class_names or ()) != CLASSES:
        parser.error(f"{args.weights} has classes {predictor.class_names}; expected {CLASSES}")
    judging, tuning = (
        [detect(predictor, draw_sequence(seed, i), args.confidence) for i in range(args.sequences)]
        for seed in (0, 1)
    )
    rows = {"no filter": (0.0, [errors(last_detection(x), truth) for truth, x in judging])}
    for name, noise in NOISES.items():
        factor = min(FACTORS, key=lambda x: judge(noise, x, tuning)[:, 0].mean())
        rows[name] = factor, judge(noise, factor, judging)
    print("| noise | factor | all frames | before | partly hidden | after | IoU | better | lost |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, (factor, values) in rows.items():
        cells = [f"{m:.2f} ± {s:.2f}" for m, s in zip(np.mean(values, 0), np.std(values, 0))]
        better = sum(x[0] < y[0] for x, y in zip(values, rows["constant"][1]))
        lost = sum(x[3] > 15 for x in values)  # px
        print("|", " | ".join([name, f"{factor:g}", *cells, f"{better}", f"{lost}"]), "|")


if __name__ == "__main__":
    main()
