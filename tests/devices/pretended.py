"""A second device without a second device: tensors that say they are on it, compute on the CPU, and refuse to mix.

What a GPU would refuse (operations between tensors of two devices, `.numpy()`), it refuses; what it would answer is the
CPU's own answer; what would make it wait for the CPU, it counts. It serves where no GPU is at hand, and
cannot tell anything about kernels or speed.
Torch has no forward mode on it, and aborts as a process that used it ends: run it in a process of its own and leave
by `os._exit`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "away"
_COPIES = ("_to_copy", "copy_", "_local_scalar_dense")
#: Copies from one device to the other, and numbers asked for, since the process began.
waits = 0
_INDEXED = ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index")  # by numbers from the CPU


class Away(Tensor):
    """A tensor on the device; `held` has its numbers."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> Away:
        made: Away = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device(NAME, 0),
        )
        made.held = held
        return made

    def __repr__(self) -> str:
        return f"Away({self.held!r})"

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.held.untyped_storage()

    def tolist(self) -> Any:
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    global waits
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    away = any(isinstance(t, Away) for t in tensors)
    name = func.overloadpacket.__name__
    if away and name not in _COPIES + _INDEXED:
        strangers = [tuple(t.shape) for t in tensors if not isinstance(t, Away) and t.dim()]
        if strangers:
            raise RuntimeError(f"{func}: tensors on two devices; those on the CPU have shapes {strangers}")
    waits += away and (name == "_local_scalar_dense" or not all(isinstance(t, Away) for t in tensors))
    if name == "copy_":
        away = isinstance(args[0], Away)
    if kwargs.get("device") is not None:
        waits += name == "_to_copy" and away != _is_away(kwargs["device"])
        away = _is_away(kwargs["device"])
        kwargs = {**kwargs, "device": torch.device("cpu")}
    bare_args, bare_kwargs = tree_map(lambda x: x.held if isinstance(x, Away) else x, (args, kwargs))
    out = func(*bare_args, **bare_kwargs)
    if name.endswith("_") and not name.startswith("_"):
        return args[0]  # in place
    return tree_map(lambda x: Away(x) if isinstance(x, Tensor) else x, out) if away else out


_tensor, _as_tensor, _get, _set = torch.tensor, torch.as_tensor, Tensor.__getitem__, Tensor.__setitem__


def _is_away(device: Any) -> bool:
    return device is not None and torch.device(device).type == NAME


# These make tensors where a mode cannot see it: here on the CPU first, then moved.


def _new_tensor(data: Any, **kwargs: Any) -> Tensor:
    if not _is_away(kwargs.get("device")):
        return _tensor(data, **kwargs)
    device, gradient = kwargs.pop("device"), kwargs.pop("requires_grad", False)
    return _tensor(data, **kwargs).to(device).requires_grad_(gradient)


def _new_as_tensor(data: Any, dtype: torch.dtype | None = None, device: Any = None) -> Tensor:
    if not _is_away(device):
        return _as_tensor(data, dtype=dtype, device=device)
    return _as_tensor(data, dtype=dtype).to(device)


def _index(index: Any) -> Any:
    parts = index if isinstance(index, tuple) else (index,)
    return tuple(_tensor(part) if isinstance(part, list | range) else part for part in parts)


@contextmanager
def pretended() -> Iterator[None]:
    """Within it tensors may be on the device `NAME`."""
    patched = {
        (torch, "tensor"): _new_tensor,
        (torch, "as_tensor"): _new_as_tensor,
        (Tensor, "__getitem__"): lambda x, i: _get(x, _index(i) if isinstance(x, Away) else i),
        (Tensor, "__setitem__"): lambda x, i, v: _set(x, _index(i) if isinstance(x, Away) else i, v),
    }
    kept = {(owner, name): getattr(owner, name) for owner, name in patched}
    for (owner, name), new in patched.items():
        setattr(owner, name, new)
    try:
        with _Mode():
            yield
    finally:
        for (owner, name), old in kept.items():
            setattr(owner, name, old)


def register() -> None:
    """Makes the device known to torch, once per process."""
    _setup_privateuseone_for_python_backend(NAME)
