"""Many machines: Ray Data runs one predictor in each worker of a cluster.

`SegmentImages` is the class for pipelines of your own. `segment_files` writes the files of many images, which
`condseg predict --ray` calls: an image that fails costs that image, the share of a lost worker is done again, and
images that are finished already are left as they are.
"""

from __future__ import annotations

from condseg_sdk.distributed.run import ClusterOptions, segment_files
from condseg_sdk.distributed.segment import SegmentImages
from condseg_sdk.distributed.write import ImageResult, OutputFiles

__all__ = ["ClusterOptions", "ImageResult", "OutputFiles", "SegmentImages", "segment_files"]
