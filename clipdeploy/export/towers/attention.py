"""Attention written for a graph: flat tokens, one fused QKV product, the scale folded into Q, a finite mask.

Everything here works on flat tokens `(N * L, D)`, so that each linear layer becomes a single `Gemm` with its bias
instead of a `MatMul`, an `Add` and two `Reshape`s. Heads are split once per attention:

    Gemm -> Reshape (N, L, 3H, d) -> Transpose (N, 3H, L, d) -> Split -> MatMul -> [Add mask] -> Softmax -> MatMul

The explicit products are what every engine compiles correctly; fused attention operators are not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

MASK_FLOOR = -1e4
"""Stands for minus infinity in additive masks: `exp` of it is 0 in float32, and float16 holds it."""


@dataclass(frozen=True)
class Projections:
    """What an attention layer computes with, whatever library it comes from.

    Attributes:
        weight: `(3 * H * d, D)`, rows of Q, K and V in this order, Q already scaled by `d ** -0.5`.
        bias: `(3 * H * d,)` or None.
        out: the linear layer behind the heads.
        heads: H.
        q_norm: norm over d of each query, or None.
        k_norm: norm over d of each key, or None.
        inner_norm: norm over H * d before `out`, or None.
        rope: what turns queries and keys by the place of their token, or None.
    """

    weight: Tensor
    bias: Tensor | None
    out: nn.Module
    heads: int
    q_norm: nn.Module | None = None
    k_norm: nn.Module | None = None
    inner_norm: nn.Module | None = None
    rope: Rope | None = None

    @property
    def head_dim(self) -> int:
        """d, the width of one head."""
        return self.weight.shape[0] // (3 * self.heads)


class Rope(nn.Module):
    """Rotary positions: channel i and channel i + d / 2 of each token are turned by an angle of its place.

    Args:
        cos: `(L, d)`.
        sin: `(L, d)`, negative in its first half.
    """

    def __init__(self, cos: Tensor, sin: Tensor) -> None:
        super().__init__()
        self.cos, self.sin = constant(cos), constant(sin)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, H, L, d)` -> `(N, H, L, d)`."""
        first, second = x.chunk(2, dim=-1)
        return x * self.cos + torch.cat([second, first], dim=-1) * self.sin


class SelfAttention(nn.Module):
    """Every token asks all tokens of its sample."""

    def __init__(self, parts: Projections) -> None:
        super().__init__()
        self.heads, self.head_dim = parts.heads, parts.head_dim
        self.qkv = linear(parts.weight, parts.bias)
        self.q_norm, self.k_norm = parts.q_norm or nn.Identity(), parts.k_norm or nn.Identity()
        self.inner_norm = parts.inner_norm or nn.Identity()
        self.rope, self.out_proj = parts.rope, parts.out

    def forward(self, x: Tensor, length: int, mask: Tensor | None = None) -> Tensor:
        """`(N * L, D)` -> `(N * L, D)`; `mask` is added to the scores `(N, H, L, L)`."""
        qkv = self.qkv(x).reshape(-1, length, 3 * self.heads, self.head_dim).transpose(1, 2)  # (N, 3H, L, d)
        if self.rope is None:
            q, k, v = qkv.split(self.heads, dim=1)
        else:
            turned, v = qkv.split([2 * self.heads, self.heads], dim=1)
            q, k = self.rope(turned).chunk(2, dim=1)
        y = attend(self.q_norm(q), self.k_norm(k), v, mask).transpose(1, 2)  # (N, L, H, d)
        return self.out_proj(self.inner_norm(y.reshape(-1, self.heads * self.head_dim)))  # type: ignore[no-any-return]


class OneQueryAttention(nn.Module):
    """One token of each sample asks all of them: what is left of attention where only that token is read.

    Where there are rotary positions the token that asks has none: it is a class token.
    """

    def __init__(self, parts: Projections) -> None:
        super().__init__()
        self.heads, self.head_dim = parts.heads, parts.head_dim
        rows = parts.heads * parts.head_dim
        bias = parts.bias
        self.q = linear(parts.weight[:rows], None if bias is None else bias[:rows])
        self.kv = linear(parts.weight[rows:], None if bias is None else bias[rows:])
        self.q_norm, self.k_norm = parts.q_norm or nn.Identity(), parts.k_norm or nn.Identity()
        self.inner_norm = parts.inner_norm or nn.Identity()
        self.rope, self.out_proj = parts.rope or nn.Identity(), parts.out

    def forward(self, query: Tensor, x: Tensor, length: int, mask: Tensor | None = None) -> Tensor:
        """`(N, D)` and `(N * L, D)` -> `(N, D)`; `mask` is added to the scores `(N, H, 1, L)`."""
        q = self.q(query).reshape(-1, self.heads, 1, self.head_dim)
        k, v = _keys_and_values(self.kv(x), length, self.heads, self.head_dim)
        y = attend(self.q_norm(q), self.rope(self.k_norm(k)), v, mask)  # (N, H, 1, d)
        return self.out_proj(self.inner_norm(y.reshape(-1, self.heads * self.head_dim)))  # type: ignore[no-any-return]


class ConstantQueryAttention(nn.Module):
    """Learned queries ask all tokens. They depend on no input, so their whole projection is a constant.

    Args:
        query: `(n, H, d)`, projected, normed and scaled.
        weight: `(2 * H * d, D)`, rows of K and V.
        bias: `(2 * H * d,)` or None.
        out: the linear layer behind the heads.
        k_norm: norm over d of each key, or None.
    """

    def __init__(
        self, query: Tensor, weight: Tensor, bias: Tensor | None, out: nn.Module, k_norm: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.queries, self.heads, self.head_dim = query.shape
        self.query = constant(query.transpose(0, 1)[None])  # (1, H, n, d)
        self.kv = linear(weight, bias)
        self.k_norm = k_norm or nn.Identity()
        self.out_proj = out

    def forward(self, x: Tensor) -> Tensor:
        """`(N, L, D)` -> `(N, n, D)`."""
        k, v = _keys_and_values(self.kv(x.reshape(-1, x.shape[2])), x.shape[1], self.heads, self.head_dim)
        y = attend(self.query, self.k_norm(k), v, None)  # (N, H, n, d)
        if self.queries > 1:
            y = y.transpose(1, 2)
        y = self.out_proj(y.reshape(-1, self.heads * self.head_dim))
        return y.reshape(-1, self.queries, y.shape[1])  # type: ignore[no-any-return]


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax attention of scaled queries: `(N, H, Q, d)`, `(N, H, L, d)`, `(N, H, L, d)` -> `(N, H, Q, d)`."""
    scores = q @ k.transpose(2, 3)
    if mask is not None:
        scores = scores + mask
    y: Tensor = scores.softmax(dim=-1) @ v
    return y


def finite_mask(mask: Tensor) -> Tensor:
    """An additive mask whose minus infinities are `MASK_FLOOR`."""
    return torch.clamp(mask, min=MASK_FLOOR)


def constant(value: Tensor) -> nn.Parameter:
    """A tensor as a frozen parameter, so that it is stored once and keeps a readable name in the graph."""
    return nn.Parameter(value.detach().contiguous(), requires_grad=False)


def linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A linear layer around tensors that exist already: `(out, in)` and `(out,)`."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = constant(weight)
    if bias is not None:
        layer.bias = constant(bias)
    return layer


def scale_queries(parts: Projections) -> Projections:
    """Fold the attention scale `d ** -0.5` into the Q rows, or behind the norm of the queries where there is one."""
    scale = parts.head_dim**-0.5
    if parts.q_norm is not None:
        return replace(parts, q_norm=_Scaled(parts.q_norm, scale))
    rows = parts.heads * parts.head_dim
    weight = parts.weight.clone()
    weight[:rows] *= scale
    bias = parts.bias
    if bias is not None:
        bias = bias.clone()
        bias[:rows] *= scale
    return replace(parts, weight=weight, bias=bias)


def read_projections(module: nn.Module) -> Projections | None:
    """The projections of a self-attention layer, Q scaled; None where the layer is of a kind not known here."""
    reader = _READERS.get(f"{type(module).__module__}.{type(module).__name__}")
    with torch.no_grad():
        parts = reader(module) if reader else None
        return scale_queries(parts) if parts else None


def _keys_and_values(kv: Tensor, length: int, heads: int, head_dim: int) -> tuple[Tensor, Tensor]:
    """`(N * L, 2 * H * d)` -> keys and values `(N, H, L, d)`."""
    k, v = kv.reshape(-1, length, 2 * heads, head_dim).transpose(1, 2).chunk(2, dim=1)
    return k, v


class _Scaled(nn.Module):
    """A norm with a factor behind it."""

    def __init__(self, norm: nn.Module, scale: float) -> None:
        super().__init__()
        self.norm, self.scale = norm, scale

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x) * self.scale  # type: ignore[no-any-return]


def _read_multihead(module: nn.Module) -> Projections | None:
    """`torch.nn.MultiheadAttention`, in its plain self-attention form."""
    if not isinstance(module, nn.MultiheadAttention) or not module._qkv_same_embed_dim:
        return None
    if module.bias_k is not None or module.add_zero_attn or module.in_proj_weight is None:
        return None
    return Projections(module.in_proj_weight, module.in_proj_bias, module.out_proj, module.num_heads)


def _read_open_clip(module: nn.Module) -> Projections | None:
    """`open_clip.transformer.Attention`, but for its scaled-cosine form."""
    from open_clip.transformer import Attention

    if not isinstance(module, Attention) or module.scaled_cosine:
        return None
    weight, bias = module.in_proj_weight, module.in_proj_bias
    if module.head_scale is not None:  # a factor on each head's output is a factor on its values
        factor = torch.ones(3, module.num_heads, module.head_dim)
        factor[2] = module.head_scale.reshape(-1, 1)
        weight = weight * factor.reshape(-1, 1)
        bias = None if bias is None else bias * factor.reshape(-1)
    return Projections(
        weight,
        bias,
        module.out_proj,
        module.num_heads,
        q_norm=_unless_identity(module.ln_q),
        k_norm=_unless_identity(module.ln_k),
        inner_norm=_unless_identity(module.ln_inner),
    )


def _read_timm(module: nn.Module) -> Projections | None:
    """`timm.layers.Attention` without a gate."""
    from timm.layers.attention import Attention

    if not isinstance(module, Attention) or getattr(module, "gate", None) is not None:
        return None
    return Projections(
        module.qkv.weight,
        module.qkv.bias,
        module.proj,
        module.num_heads,
        q_norm=_unless_identity(module.q_norm),
        k_norm=_unless_identity(module.k_norm),
        inner_norm=_unless_identity(module.norm),
    )


def _read_transformers(module: nn.Module) -> Projections:
    """The attention of CLIP, SigLIP and their kin in Hugging Face transformers: Q, K and V are layers of their own."""
    layers: list[nn.Linear] = [module.get_submodule(f"{name}_proj") for name in "qkv"]  # type: ignore[misc]
    weight, bias = torch.cat([layer.weight for layer in layers]), torch.cat([layer.bias for layer in layers])
    heads: int = module.num_heads  # type: ignore[assignment]
    return Projections(weight, bias, module.get_submodule("out_proj"), heads)


def _unless_identity(module: nn.Module) -> nn.Module | None:
    return None if isinstance(module, nn.Identity) else module


# By exact class: a subclass may compute something else.
_READERS: dict[str, Callable[[nn.Module], Projections | None]] = {
    "torch.nn.modules.activation.MultiheadAttention": _read_multihead,
    "open_clip.transformer.Attention": _read_open_clip,
    "timm.layers.attention.Attention": _read_timm,
    "transformers.models.clip.modeling_clip.CLIPAttention": _read_transformers,
    "transformers.models.siglip.modeling_siglip.SiglipAttention": _read_transformers,
    "transformers.models.metaclip_2.modeling_metaclip_2.MetaClip2Attention": _read_transformers,
    "transformers.models.altclip.modeling_altclip.AltCLIPAttention": _read_transformers,
    "transformers.models.chinese_clip.modeling_chinese_clip.ChineseCLIPVisionAttention": _read_transformers,
}
