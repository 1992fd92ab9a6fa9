"""Training data: finds pairs of image and mask on disk, checks them, and loads them as tensors."""

from condseg_sdk.data.cache import CachedPairs, load_pair
from condseg_sdk.data.check import check_dataset
from condseg_sdk.data.check_report import DatasetReport
from condseg_sdk.data.dataset import DataSource, data_name, find_pairs, find_split, open_dataset
from condseg_sdk.data.masks import load_mask, resize_mask
from condseg_sdk.data.names import read_names
from condseg_sdk.data.pairs import Dataset, IndexedMask, MaskSource, MergedMask, Pair, Problem, RegionMask
from condseg_sdk.data.splits import hold_out

__all__ = [
    "CachedPairs",
    "DataSource",
    "Dataset",
    "DatasetReport",
    "IndexedMask",
    "MaskSource",
    "MergedMask",
    "Pair",
    "Problem",
    "RegionMask",
    "check_dataset",
    "data_name",
    "find_pairs",
    "find_split",
    "hold_out",
    "load_mask",
    "load_pair",
    "open_dataset",
    "read_names",
    "resize_mask",
]
