"""The networks. Start reading at `condseg.py`."""

from condseg_sdk.models.condseg import NETWORKS, ConDSeg, ConDSegOutput, network_arguments
from condseg_sdk.models.consistency import ConsistencyNetwork

__all__ = ["NETWORKS", "ConDSeg", "ConDSegOutput", "ConsistencyNetwork", "network_arguments"]
