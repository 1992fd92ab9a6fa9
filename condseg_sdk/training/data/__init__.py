"""Training data: what people have on disk -> pairs, checked -> tensors in memory."""

from condseg_sdk.training.data.cache import CachedPairs, load_pair
from condseg_sdk.training.data.check import check_dataset
from condseg_sdk.training.data.layouts import DataSource, data_name, find_pairs, find_part, open_dataset
from condseg_sdk.training.data.masks import load_mask, resize_mask
from condseg_sdk.training.data.names import read_names
from condseg_sdk.training.data.pairs import Dataset, MaskSource, Pair, Problem, RegionMask
from condseg_sdk.training.data.report import DatasetReport
from condseg_sdk.training.data.splits import hold_out

__all__ = [
    "CachedPairs",
    "DataSource",
    "Dataset",
    "DatasetReport",
    "MaskSource",
    "Pair",
    "Problem",
    "RegionMask",
    "check_dataset",
    "data_name",
    "find_pairs",
    "find_part",
    "hold_out",
    "load_mask",
    "load_pair",
    "open_dataset",
    "read_names",
    "resize_mask",
]
