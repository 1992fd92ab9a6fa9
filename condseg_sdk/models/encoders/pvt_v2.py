"""Pyramid Vision Transformer v2 (Wang et al. 2022), size b2, with module names close to the published ones.

Parity with the published network depends on these numerics: the norms of blocks and stages use eps 1e-6, those of patch
embedding and spatial reduction LayerNorm's default of 1e-5; GELU is the exact one; all projections have a bias.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from condseg_sdk.checkpoints.manifest_entry import HubFile, ManifestEntry
from condseg_sdk.models.encoders.base import IMAGENET_PIXELS, Encoder, EncoderSpec, register_encoder

BLOCK_EPS = 1e-6
CHANNELS = (64, 128, 320, 512)


def _to_map(tokens: Tensor, height: int, width: int) -> Tensor:
    return tokens.transpose(1, 2).unflatten(2, (height, width))


class PatchEmbedding(nn.Module):
    """Overlapping patches: a strided convolution and a norm."""

    def __init__(self, in_channels: int, channels: int, *, kernel: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, channels, kernel, stride=stride, padding=kernel // 2)
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> tuple[Tensor, int, int]:
        """Turn a map (B, C, H, W) into tokens (B, H' W', C'); return them with H' and W'."""
        x = self.proj(x)
        height, width = x.shape[-2:]
        return self.norm(x.flatten(2).transpose(1, 2)), height, width


class SpatialReductionAttention(nn.Module):
    """Self-attention whose keys and values come from a map that is smaller by the factor `reduction`."""

    def __init__(self, channels: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(channels, channels)
        self.kv = nn.Linear(channels, 2 * channels)
        self.proj = nn.Linear(channels, channels)
        self.sr: nn.Conv2d | None = None
        if reduction > 1:
            self.sr = nn.Conv2d(channels, channels, reduction, stride=reduction)
            self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        """Attend to the tokens (B, height * width, C)."""
        query = self.q(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
        reduced = x if self.sr is None else self.norm(self.sr(_to_map(x, height, width)).flatten(2).transpose(1, 2))
        key, value = self.kv(reduced).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value)
        result: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return result


class MLP(nn.Module):
    """Two linear layers with a depthwise 3x3 convolution between them, which replaces position embeddings."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.dwconv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        """Transform the tokens (B, height * width, C)."""
        x = self.dwconv(_to_map(self.fc1(x), height, width)).flatten(2).transpose(1, 2)
        result: Tensor = self.fc2(F.gelu(x))
        return result


class Block(nn.Module):
    """Attention and MLP, each with a norm before it and a shortcut around it."""

    def __init__(self, channels: int, heads: int, mlp_ratio: int, reduction: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=BLOCK_EPS)
        self.attn = SpatialReductionAttention(channels, heads, reduction)
        self.norm2 = nn.LayerNorm(channels, eps=BLOCK_EPS)
        self.mlp = MLP(channels, channels * mlp_ratio)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        """Transform the tokens (B, height * width, C)."""
        x = x + self.attn(self.norm1(x), height, width)
        return x + self.mlp(self.norm2(x), height, width)


class Stage(nn.Module):
    """Patch embedding, blocks and a norm."""

    def __init__(
        self, in_channels: int, channels: int, *, depth: int, heads: int, mlp_ratio: int, reduction: int, first: bool
    ) -> None:
        super().__init__()
        kernel, stride = (7, 4) if first else (3, 2)
        self.patch_embed = PatchEmbedding(in_channels, channels, kernel=kernel, stride=stride)
        self.blocks = nn.ModuleList([Block(channels, heads, mlp_ratio, reduction) for _ in range(depth)])
        self.norm = nn.LayerNorm(channels, eps=BLOCK_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Transform a map (B, C, H, W) into (B, C', H', W')."""
        tokens, height, width = self.patch_embed(x)
        for block in self.blocks:
            tokens = block(tokens, height, width)
        return _to_map(self.norm(tokens), height, width).contiguous()


class PyramidVisionTransformerV2(Encoder):
    """Four stages whose outputs are the feature maps.

    Args:
        depths: Number of blocks of each stage; (3, 4, 6, 3) is size b2.
    """

    def __init__(self, depths: tuple[int, int, int, int] = (3, 4, 6, 3)) -> None:
        super().__init__()
        heads, mlp_ratios, reductions = (1, 2, 5, 8), (8, 8, 4, 4), (8, 4, 2, 1)
        inputs = (3, *CHANNELS[:3])
        self.stages = nn.ModuleList(
            [
                Stage(
                    inputs[i],
                    CHANNELS[i],
                    depth=depths[i],
                    heads=heads[i],
                    mlp_ratio=mlp_ratios[i],
                    reduction=reductions[i],
                    first=i == 0,
                )
                for i in range(4)
            ]
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compute the feature maps at the strides 4, 8, 16 and 32."""
        features = []
        for stage in self.stages:
            images = stage(images)
            features.append(images)
        x1, x2, x3, x4 = features
        return x1, x2, x3, x4


def _timm_names() -> dict[str, str]:
    """Map timm's names: its patch embeddings belong to the stages, except for the first one."""
    names = {"patch_embed": "stages.0.patch_embed"}
    for stage in range(4):
        names |= {f"stages.{stage}.{part}": f"stages.{stage}.{part}" for part in ("blocks", "norm")}
        if stage:
            names[f"stages.{stage}.downsample"] = f"stages.{stage}.patch_embed"
    return names


# 24.8 M parameters.
register_encoder(
    EncoderSpec(
        name="pvt_v2_b2",
        build=PyramidVisionTransformerV2,
        channels=CHANNELS,
        strides=(4, 8, 16, 32),
        imagenet=(
            ManifestEntry(
                name="imagenet:pvt_v2_b2",
                kind="encoder",
                network="pvt_v2_b2",
                license="apache-2.0",
                attribution="PVTv2-b2 by Wenhai Wang et al., as timm publishes it",
                data="ImageNet-1k",
                preprocessing=IMAGENET_PIXELS,
                hub=HubFile("timm/pvt_v2_b2.in1k", "model.safetensors"),
            ),
        ),
        published_names=_timm_names(),
        left_out=("head.",),
    )
)
