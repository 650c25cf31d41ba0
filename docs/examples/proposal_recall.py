"""The recall of an R-CNN's proposals: how many objects have one that fits.

    python docs/examples/proposal_recall.py output/shapes_gfl_faster_rcnn/model_final.pth

AR@100 is the recall by the 100 best proposals of an image, averaged over IoU 0.5, 0.55, ... 0.95.
"""

import sys

from detectron2.config import instantiate
from detectron2.evaluation import inference_on_dataset
from detectron2.modeling.meta_arch import GeneralizedRCNN, ProposalNetwork

from gfocal.engine import LazyTrainer, Predictor
from gfocal.weights.description import find_config


def first_stage(model: GeneralizedRCNN) -> ProposalNetwork:
    """Detectron2's model of an R-CNN's first stage, which answers its proposals."""
    return ProposalNetwork(
        backbone=model.backbone,
        proposal_generator=model.proposal_generator,
        pixel_mean=model.pixel_mean.flatten().tolist(),
        pixel_std=model.pixel_std.flatten().tolist(),
    ).to(model.device)


def proposal_recall(weights: str) -> dict[str, float]:
    """AR of weights that carry their config, on its first test dataset."""
    cfg, _ = find_config(weights)
    cfg.dataloader.evaluator.output_dir = None
    model = first_stage(Predictor(cfg).model).eval()
    evaluator = instantiate(cfg.dataloader.evaluator)
    results = inference_on_dataset(model, LazyTrainer.build_test_loader(cfg), evaluator)
    return dict(results["box_proposals"])


if __name__ == "__main__":
    for name, value in proposal_recall(*sys.argv[1:]).items():
        print(f"{name}: {value:.2f}")
