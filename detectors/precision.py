"""Which number format a network runs in: bfloat16 or half precision where the device is built for it, else float32."""

from __future__ import annotations

import logging

import torch

# Below "mining", whose log the command line sets up.
LOG = logging.getLogger("mining.detectors")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Turn a spec's ``precision`` into the type of a network's weights and activations on ``device``.

    ``auto`` takes bfloat16 where it is fast; on older cards with fast halves float16; else float32. Any other value is
    taken at its word; where it is slow, a line in the log says so.
    """
    if precision != "auto":
        if device.type == "cpu" and precision != "fp32" and not cpu_has(precision):
            LOG.warning(
                '%s is slow on this CPU, which only emulates it; precision = "auto" is faster', precision
            )
        return DTYPES[precision]
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        if capability >= (8, 0):  # Ampere and later: tensor cores for bfloat16, and its range needs no care
            return torch.bfloat16
        return (
            torch.float16 if capability >= (7, 0) else torch.float32
        )  # Volta, Turing: tensor cores for halves
    return torch.bfloat16 if cpu_has("bf16") else torch.float32


def cpu_has(precision: str) -> bool:
    """Whether this CPU multiplies ``bf16`` or ``fp16`` itself. AVX-512 alone emulates bf16, at no gain over float32."""
    if precision == "fp16":
        return bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
