"""The seam into networks: every method that edits attention or features goes through here.

    with controlled(net, qkv=share_keys, probs=swap_words):   attention, two verbs
        ...
    with tapped(net.mid_block, lambda h: h + dh):             the output of any module
        ...

Works on our `UNet`, on diffusers' `UNet2DModel` and `UNet2DConditionModel`, and on any network
whose attention modules carry their `Attention` class's surface. Controls stack: an inner block
sees what the outer one left. When a block ends, also by an exception, the network is as it was.

Without `probs`, attention stays fused and a control that returns what it was given changes no
bit; with `probs` the matrix is formed explicitly, which agrees with the fused one to 2e-6. It is
large where a picture looks at itself: `where` keeps the other sites fused.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Site:
    """Where in the network an attention is computed.

    name      path of the module, "up_blocks.1.0.attention.attn1"
    place     "down", "mid" or "up"; "" elsewhere
    index     0, 1, .. in the order of execution in the first forward pass under control; not the
              order of registration, which in diffusers puts the middle last
    is_cross  to text, not of the picture to itself
    size      (h, w) of the map that asks, None if it was not seen
    """

    name: str
    place: str
    index: int
    is_cross: bool
    size: tuple[int, int] | None


QKV = Callable[[Site, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
Probs = Callable[[Site, Tensor], Tensor]
Where = Callable[[Site], bool]
# What the control can stand in for. Others (IP-Adapter, added keys) do more: they are refused.
KNOWN = ("Fused", "AttnProcessor", "AttnProcessor2_0", "_Processor")


@contextmanager
def controlled(net: nn.Module, qkv: QKV | None = None, probs: Probs | None = None,
               where: Where | None = None) -> Iterator[list[Site]]:
    """Puts every attention of `net` under control; gives the sites, in order, as they run.

    qkv(site, q, k, v) -> (q, k, v)   (b, heads, n, d); k and v may come back with more or fewer
                                      tokens, both with the same number
    probs(site, A) -> A               (b, heads, n, l), rows sum to 1; same shape
    where(site) -> bool               False: probs is not asked there; None: it is everywhere

    Raises ValueError for a network without attention, one with a processor that does more than
    attention, an attention mask during a forward pass, and a verb's answer of a wrong shape.
    """
    found = {name: m for name, m in net.named_modules()
             if all(hasattr(m, a) for a in ("set_processor", "get_processor", "to_q"))}
    _check(net, found)
    sites: list[Site] = []
    maps: dict[str, tuple[int, int]] = {}
    with ExitStack() as restore:
        for name in _ancestors(found):
            hook = net.get_submodule(name).register_forward_pre_hook(_measure(name, maps),
                                                                     with_kwargs=True)
            restore.callback(hook.remove)
        for name, attn in found.items():
            before = attn.get_processor()
            restore.callback(attn.set_processor, before)
            outer = before.verbs if isinstance(before, _Processor) else ()
            attn.set_processor(_Processor(name, sites, maps, (*outer, (qkv, probs, where))))
        yield sites


def trace(net: nn.Module, *args: Any, **kwargs: Any) -> list[Site]:
    """The sites of `net` in order of execution, by one forward pass net(*args, **kwargs)."""
    with controlled(net) as sites, torch.no_grad():
        net(*args, **kwargs)
    return sites


@contextmanager
def tapped(module: nn.Module, f: Callable[[Any], Any]) -> Iterator[None]:
    """Sends the output of `module` through f; f may only look, and return None.

    What f gets is whatever the module returns: a tensor, or for diffusers' down blocks a tuple.
    """
    hook = module.register_forward_hook(lambda _module, _inputs, output: f(output))
    try:
        yield
    finally:
        hook.remove()


# ---- inside ---------------------------------------------------------------------------------


class _Processor:
    """Attention as torch's fused one computes it, with the verbs applied on the way."""

    def __init__(self, name: str, sites: list[Site], maps: dict[str, tuple[int, int]],
                 verbs: tuple[tuple[QKV | None, Probs | None, Where | None], ...]):
        self.name, self.sites, self.maps, self.verbs = name, sites, maps, verbs
        self.site: Site | None = None

    def __call__(self, attn: nn.Module, hidden_states: Tensor,
                 encoder_hidden_states: Tensor | None = None,
                 attention_mask: Tensor | None = None, temb: Tensor | None = None) -> Tensor:
        if attention_mask is not None:
            raise ValueError(f"attention_mask is given at '{self.name}': attention under control "
                             "takes none")
        x, residual = hidden_states, hidden_states
        site = self._locate(attn, x)
        if x.ndim == 4:  # diffusers' UNet2DModel hands over the map: b c h w -> b n c
            x = x.flatten(2).transpose(1, 2)
        if getattr(attn, "group_norm", None) is not None:
            x = attn.group_norm(x.transpose(1, 2)).transpose(1, 2)
        source = x if encoder_hidden_states is None else encoder_hidden_states
        if encoder_hidden_states is not None and getattr(attn, "norm_cross", None):
            source = attn.norm_encoder_hidden_states(source)

        q, k, v = (layer(y).unflatten(2, (attn.heads, -1)).transpose(1, 2)  # b h n d
                   for layer, y in ((attn.to_q, x), (attn.to_k, source), (attn.to_v, source)))
        q = q if getattr(attn, "norm_q", None) is None else attn.norm_q(q)
        k = k if getattr(attn, "norm_k", None) is None else attn.norm_k(k)
        y = self._attend(attn, site, q, k, v)
        y = attn.to_out[1](attn.to_out[0](y.transpose(1, 2).flatten(2)))

        if residual.ndim == 4:
            y = y.transpose(1, 2).unflatten(2, residual.shape[2:])
        if getattr(attn, "residual_connection", False):
            y = y + residual
        return y / getattr(attn, "rescale_output_factor", 1.0)

    def _attend(self, attn: nn.Module, site: Site, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        for qkv in (a for a, _, _ in self.verbs if a is not None):
            asked = q.shape
            q, k, v = qkv(site, q, k, v)
            if q.shape != asked or k.shape != v.shape or k.shape[:2] != asked[:2]:
                raise ValueError(f"qkv at '{site.name}' gave shapes {tuple(q.shape)}, "
                                 f"{tuple(k.shape)}, {tuple(v.shape)}: expected q "
                                 f"{tuple(asked)} and k, v of one shape with its batch and heads")
        edits = [p for _, p, where in self.verbs
                 if p is not None and (where is None or where(site))]
        if not edits:
            return F.scaled_dot_product_attention(q, k, v, scale=attn.scale)
        wide = getattr(attn, "upcast_attention", False)  # Stable Diffusion 2.1 overflows in fp16
        logits = (q.float() @ k.float().mT if wide else q @ k.mT) * attn.scale
        A = logits.softmax(-1).to(v.dtype)  # b h n l
        for probs in edits:
            asked = A.shape
            A = probs(site, A)
            if A.shape != asked:
                raise ValueError(f"probs at '{site.name}' gave shape {tuple(A.shape)}: "
                                 f"expected {tuple(asked)}")
        return A @ v

    def _locate(self, attn: nn.Module, x: Tensor) -> Site:
        size = (x.shape[2], x.shape[3]) if x.ndim == 4 else next(
            (self.maps[name] for name in _parents(self.name) if name in self.maps), None)
        if self.site is None:
            place = next((p for p in ("down", "mid", "up")
                          if self.name.startswith(f"{p}_block")), "")
            self.site = Site(self.name, place, len(self.sites), attn.is_cross_attention, size)
            self.sites.append(self.site)
        elif self.site.size != size:
            self.site = self.sites[self.site.index] = replace(self.site, size=size)
        return self.site


def _parents(name: str) -> Iterator[str]:
    """Paths of the modules around `name`, the nearest first, the network itself left out."""
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def _ancestors(found: dict[str, nn.Module]) -> list[str]:
    return sorted({parent for name in found for parent in _parents(name)})


def _measure(name: str, maps: dict[str, tuple[int, int]]) -> Callable[..., None]:
    """A hook that notes the size of the map which goes into the module called `name`."""
    def hook(_module: nn.Module, args: tuple, kwargs: dict) -> None:
        x = args[0] if args else kwargs.get("hidden_states")
        if isinstance(x, Tensor) and x.ndim == 4:
            maps[name] = (x.shape[2], x.shape[3])

    return hook


def _check(net: nn.Module, found: dict[str, nn.Module]) -> None:
    if not found:
        raise ValueError(f"net is a {type(net).__name__} without attention: there is nothing to "
                         "control")
    for name, attn in found.items():
        kind = type(attn.get_processor()).__name__
        if kind not in KNOWN or getattr(attn, "added_kv_proj_dim", None) is not None:
            raise ValueError(f"'{name}' has the processor {kind}: accepted are {KNOWN[0]}, "
                             f"{KNOWN[1]}, {KNOWN[2]}, without added keys")
        if getattr(attn, "spatial_norm", None) is not None:
            raise ValueError(f"'{name}' has a spatial norm: attention under control takes none")
