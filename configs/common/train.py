"""The keys of Detectron2's configs/common/train.py, and a device that is there."""

import torch

train = dict(
    output_dir="./output",
    init_checkpoint="",
    max_iter=90000,
    seed=-1,  # from 0 on: initial weights and order of images repeat
    amp=dict(enabled=False),
    channels_last=False,  # memory format of the convolutions
    ddp=dict(broadcast_buffers=False, find_unused_parameters=False, fp16_compression=False),
    checkpointer=dict(period=5000, max_to_keep=100),
    eval_period=5000,
    log_period=20,
    device="cuda" if torch.cuda.is_available() else "cpu",
)
