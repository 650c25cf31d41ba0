"""Images for an exported network, and what the detector itself finds on them."""

import torch


def pictures(count=2, height=70, width=90):
    return (torch.rand(count, 3, height, width) * 255).round()


@torch.no_grad()
def found_by(model, images):
    """The detector's own detections as the network has them; with stds, if it has them."""
    found = [x["instances"] for x in model([{"image": image} for image in images])]
    columns = [[x.pred_boxes.tensor for x in found]]
    columns += [[x.scores for x in found], [x.pred_classes for x in found]]
    columns += [[torch.full_like(x.pred_classes, i) for i, x in enumerate(found)]]
    if found[0].has("pred_box_stds"):
        columns.append([x.pred_box_stds for x in found])
    return tuple(torch.cat(column) for column in columns)
