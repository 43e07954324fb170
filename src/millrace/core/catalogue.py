"""Devices and models that a fleet can be described with by name; every figure says where it comes from."""

from __future__ import annotations

from millrace.core.device import DeviceSpec
from millrace.core.model import LatentSpec, ModelSpec
from millrace.core.suggest import unknown

_MIB = 2**20
_IDLE = "idle power with a CUDA context: arXiv:2605.23918"
_MEMORY = "memory: nvidia-smi"

_DEVICES = (
    DeviceSpec(
        name="a100-80g",
        flops=312e12,
        memory_bytes=81_920 * _MIB,
        memory_bytes_per_s=2.039e12,
        link_bytes_per_s=300e9,
        tdp_w=400,
        idle_w=80.0,
        price_per_h=1.79,
        price_source="RunPod Secure Cloud, A100 SXM 80 GB on demand, 2026-11-09",
        source=f"NVIDIA A100 80GB SXM data sheet; {_MEMORY}; {_IDLE}",
    ),
    DeviceSpec(
        name="h100",
        flops=989.4e12,
        fp8_flops=1978.9e12,
        memory_bytes=81_559 * _MIB,
        memory_bytes_per_s=3.35e12,
        link_bytes_per_s=450e9,
        tdp_w=700,
        idle_w=121.7,
        price_per_h=3.99,
        price_source="RunPod Secure Cloud, H100 SXM 80 GB on demand, 2026-11-09",
        source=f"NVIDIA H100 SXM data sheet; {_MEMORY}; {_IDLE}",
    ),
    DeviceSpec(
        name="h200",
        flops=989.4e12,
        fp8_flops=1978.9e12,
        memory_bytes=143_771 * _MIB,
        memory_bytes_per_s=4.8e12,
        link_bytes_per_s=450e9,
        tdp_w=700,
        idle_w=121.7,
        price_per_h=3.99,
        price_source="Hyperstack, H200 SXM on demand, 2026-08-26",
        source=f"NVIDIA H200 SXM data sheet; {_MEMORY}; idle power of the H100, which has the same die",
    ),
    DeviceSpec(
        name="l40s",
        flops=362.05e12,
        fp8_flops=733e12,
        memory_bytes=46_068 * _MIB,
        memory_bytes_per_s=864e9,
        link_bytes_per_s=32e9,
        tdp_w=350,
        idle_w=102.1,
        source=f"NVIDIA L40S data sheet; link: PCIe 4.0 x16; {_MEMORY}; {_IDLE}",
    ),
    DeviceSpec(
        name="rtx-4090",
        flops=165.2e12,
        fp8_flops=330.3e12,
        memory_bytes=25_250_627_584,
        memory_bytes_per_s=1.008e12,
        link_bytes_per_s=32e9,
        tdp_w=450,
        source="NVIDIA Ada whitepaper, fp32 accumulation; link: PCIe 4.0 x16; memory: CUDA",
    ),
    DeviceSpec(
        name="rtx-pro-6000",
        flops=503.8e12,
        fp8_flops=1007.6e12,
        memory_bytes=97_887 * _MIB,
        memory_bytes_per_s=1.792e12,
        link_bytes_per_s=64e9,
        tdp_w=600,
        source=f"NVIDIA RTX PRO 6000 Blackwell data sheet; link: PCIe 5.0 x16; {_MEMORY}",
    ),
    DeviceSpec(
        name="mi300x",
        flops=1307.4e12,
        fp8_flops=2614.9e12,
        memory_bytes=196_592 * _MIB,
        memory_bytes_per_s=5.3e12,
        link_bytes_per_s=448e9,
        tdp_w=750,
        source="AMD Instinct MI300X data sheet; link: Infinity Fabric to 7 peers; memory: rocm-smi",
    ),
    DeviceSpec(
        name="cpu",
        flops=0.15e12,
        memory_bytes=8 * 2**30,
        memory_bytes_per_s=20e9,
        source="two server cores with AVX-512 in fp32, rounded: a stand-in until this machine is calibrated",
    ),
)


_MODELS = (
    ModelSpec(
        name="llama-2-7b",
        layers=32,
        hidden=4096,
        heads=32,
        kv_heads=32,
        head_dim=128,
        ffn=11_008,
        vocab=32_000,
        context_tokens=4_096,
        source="config.json of meta-llama/Llama-2-7b-hf",
    ),
    ModelSpec(
        name="llama-2-70b",
        layers=80,
        hidden=8192,
        heads=64,
        kv_heads=8,
        head_dim=128,
        ffn=28_672,
        vocab=32_000,
        context_tokens=4_096,
        source="config.json of meta-llama/Llama-2-70b-hf",
    ),
    ModelSpec(
        name="llama-3-8b",
        layers=32,
        hidden=4096,
        heads=32,
        kv_heads=8,
        head_dim=128,
        ffn=14_336,
        vocab=128_256,
        context_tokens=8_192,
        source="config.json of meta-llama/Meta-Llama-3-8B, which Llama-3.1-8B shares but for its context",
    ),
    ModelSpec(
        name="llama-3-70b",
        layers=80,
        hidden=8192,
        heads=64,
        kv_heads=8,
        head_dim=128,
        ffn=28_672,
        vocab=128_256,
        context_tokens=8_192,
        source="config.json of meta-llama/Meta-Llama-3-70B, which 3.1 and 3.3 share but for their context",
    ),
    ModelSpec(
        name="qwen3-8b",
        layers=36,
        hidden=4096,
        heads=32,
        kv_heads=8,
        head_dim=128,
        ffn=12_288,
        vocab=151_936,
        context_tokens=40_960,
        qk_norm=True,
        source="config.json of Qwen/Qwen3-8B",
    ),
    ModelSpec(
        name="qwen3-32b",
        layers=64,
        hidden=5120,
        heads=64,
        kv_heads=8,
        head_dim=128,
        ffn=25_600,
        vocab=151_936,
        context_tokens=40_960,
        qk_norm=True,
        source="config.json of Qwen/Qwen3-32B",
    ),
    ModelSpec(
        name="mixtral-8x7b",
        layers=32,
        hidden=4096,
        heads=32,
        kv_heads=8,
        head_dim=128,
        ffn=14_336,
        vocab=32_000,
        context_tokens=32_768,
        experts=8,
        active_experts=2,
        expert_ffn=14_336,
        source="config.json of mistralai/Mixtral-8x7B-v0.1",
    ),
    ModelSpec(
        name="deepseek-v3",
        layers=61,
        hidden=7168,
        heads=128,
        kv_heads=128,
        head_dim=192,
        ffn=18_432,
        vocab=129_280,
        context_tokens=163_840,
        experts=256,
        active_experts=8,
        shared_experts=1,
        expert_ffn=2048,
        dense_layers=3,
        latent=LatentSpec(query_rank=1536, kv_rank=512, nope_dim=128, rope_dim=64, value_dim=128),
        weight_bytes_each=1,
        source="config.json of deepseek-ai/DeepSeek-V3, fp8 weights, without multi-token prediction",
    ),
    ModelSpec(
        name="demo",
        layers=4,
        hidden=256,
        heads=4,
        kv_heads=2,
        head_dim=64,
        ffn=768,
        vocab=4096,
        context_tokens=2_048,
        tied_embeddings=True,
        weight_bytes_each=4,
        kv_bytes_each=4,
        source="config.json of the demo model that Millrace ships; its engine computes in fp32",
    ),
)

DEVICES = {spec.name: spec for spec in _DEVICES}
MODELS = {spec.name: spec for spec in _MODELS}


def device(name: str) -> DeviceSpec:
    """Return the device of this name. Raises ValueError, naming those there are."""
    if name not in DEVICES:
        raise unknown("device", name, DEVICES)
    return DEVICES[name]


def model(name: str) -> ModelSpec:
    """Return the model of this name. Raises ValueError, naming those there are."""
    if name not in MODELS:
        raise unknown("model", name, MODELS)
    return MODELS[name]
