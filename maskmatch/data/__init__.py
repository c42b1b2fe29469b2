"""Data sets, their checks, and the loaders that turn them into training batches."""

from __future__ import annotations

from maskmatch.data.checking.fingerprint import check_fingerprint, fingerprint
from maskmatch.data.checking.preflight import check_dataset, measurable
from maskmatch.data.dataset import Dataset, Pair
from maskmatch.data.decoding.classes import format_palette
from maskmatch.data.decoding.files import read_image, read_mask, read_pair
from maskmatch.data.listing.layouts import load_dataset
from maskmatch.data.listing.overlap import overlaps
from maskmatch.data.loading import Loader, choose_loader, dali_installed, make_loader

__all__ = [
    "Dataset",
    "Loader",
    "Pair",
    "check_dataset",
    "check_fingerprint",
    "choose_loader",
    "dali_installed",
    "fingerprint",
    "format_palette",
    "load_dataset",
    "make_loader",
    "measurable",
    "overlaps",
    "read_image",
    "read_mask",
    "read_pair",
]
