"""GFLV2 as published: the baseline of the tables of no paper."""

from .atss import dataloader, lr_multiplier, model, optimizer, train
