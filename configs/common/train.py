"""The keys of Detectron2's configs/common/train.py, and a device that is there."""

import torch

train = dict(
    output_dir="./output",
    init_checkpoint="",
    max_iter=90000,
    seed=-1,  # from 0 on: initial weights, order of images and augmentations repeat
    deterministic=False,  # algorithms that give the same bits again, on the same machine
    amp=dict(enabled=False),
    channels_last=False,  # memory format of the convolutions
    ddp=dict(broadcast_buffers=False, find_unused_parameters=False, fp16_compression=False),
    checkpointer=dict(period=5000, max_to_keep=100),
    eval_period=5000,
    log_period=20,
    ema_decay=0.0,  # e.g. 0.9998: averaged weights are evaluated and saved beside the raw ones
    validation_loss=False,  # at each evaluation also the losses on the test images
    best_metric="",  # e.g. "bbox/AP", "ema/bbox/AP": keep its best weights as model_best.pth
    best_mode="max",  # "min" for best_metric="validation/total_loss"
    early_stop_patience=0,  # end after so many evaluations without a better best_metric
    device="cuda" if torch.cuda.is_available() else "cpu",
)
