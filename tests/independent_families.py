"""Small models of many families with random weights as Hugging Face folders, and what MLX computes with them."""

import json
import os
from dataclasses import dataclass
from functools import partial

os.environ.setdefault("MLX_DISABLE_COMPILE", "1")

import gguf
import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.models import (
    deepseek_v2,
    gemma,
    gemma2,
    gemma3_text,
    glm4,
    gpt_bigcode,
    granite,
    granitemoehybrid,
    helium,
    lfm2,
    llama,
    mamba,
    mamba2,
    mixtral,
    olmo2,
    phi,
    phi3,
    qwen2_moe,
    qwen3_moe,
    recurrent_gemma,
    smollm3,
    stablelm,
    starcoder2,
)
from mlx_lm.models.cache import make_prompt_cache
from safetensors.numpy import load_file, save_file

from independent_llama import BASE, Independent, add_sizes, add_tokenizer, write_tokenizer

mx.set_default_device(mx.cpu)

# MLX has the exact activation here, and the files of this family say the approximation.
gpt_bigcode.MLP.__call__ = lambda self, x: self.c_proj(nn.gelu_approx(self.c_fc(x)))


class Clipped(nn.Linear):
    """A projection whose numbers are held within a bound."""

    def __call__(self, x):
        return mx.clip(super().__call__(x), -self.most, self.most)


class olmo:
    """OLMo's first, which MLX has by other names: a Llama whose norms have no weights, and that may clip."""

    @dataclass
    class ModelArgs(llama.ModelArgs):
        clip_qkv: float | None = None

    class Model(llama.Model):
        def __init__(self, args):
            super().__init__(args)
            norm = partial(nn.LayerNorm, args.hidden_size, eps=1e-5, affine=False)
            self.model.norm = norm()
            for layer in self.model.layers:
                layer.input_layernorm, layer.post_attention_layernorm = norm(), norm()
                for name in ("q_proj", "k_proj", "v_proj") if args.clip_qkv else ():
                    outputs, inputs = layer.self_attn[name].weight.shape
                    layer.self_attn[name] = Clipped(inputs, outputs, bias=False)
                    layer.self_attn[name].most = args.clip_qkv


COMMON = BASE | {"num_key_value_heads": 2}
GEMMA = {"head_dim": 16, "hidden_activation": "gelu_pytorch_tanh", "rms_norm_eps": 1e-6, "tie_word_embeddings": True}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 48, "num_experts": 6, "decoder_sparse_step": 1}
# One list for both lengths: MLX takes the long one always, and we the short one.
FACTORS = [1.0 + 0.25 * pair for pair in range(6)]
MULTIPLIERS = {
    "attention_multiplier": 0.1,
    "embedding_multiplier": 6.0,
    "residual_multiplier": 0.3,
    "logits_scaling": 2.0,
    "tie_word_embeddings": True,
}
DEEPSEEK = {
    "model_type": "deepseek_v2",
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-6,
    "kv_lora_rank": 24,
    "q_lora_rank": None,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 12,
    "v_head_dim": 16,
    "n_routed_experts": 6,
    "n_shared_experts": 2,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 48,
    "first_k_dense_replace": 1,
    "topk_method": "greedy",
    "routed_scaling_factor": 1.5,
    # MLX wants one; this one changes nothing.
    "rope_scaling": {"type": "yarn", "factor": 1.0, "original_max_position_embeddings": 256},
}
YARN = {
    "type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 64,
    "beta_fast": 32,
    "beta_slow": 1,
    "mscale": 0.707,
    "mscale_all_dim": 0.5,
}
LFM2 = {
    "model_type": "lfm2",
    "norm_eps": 1e-5,
    "conv_bias": False,
    "conv_L_cache": 3,
    "block_dim": 64,
    "block_ff_dim": 200,
    "block_multiple_of": 32,
    "block_ffn_dim_multiplier": 1.0,
    "block_auto_adjust_ff_dim": True,
    "tie_word_embeddings": True,
}
STABLELM = {"model_type": "stablelm", "layer_norm_eps": 1e-5, "partial_rotary_factor": 0.25}
SMOLLM3 = {"model_type": "smollm3", "num_hidden_layers": 4, "tie_word_embeddings": True}

# Tensors that are made large, so that what follows depends on more than the last token.
MIXING = ("o_proj", "down_proj", "c_proj", "c_attn", "post_", "q_proj", ".dense", "fc2", "out_proj", "linear_out")

SHAPES = {
    "deepseek2": (deepseek_v2, "DeepseekV2ForCausalLM", DEEPSEEK),
    "deepseek2-yarn": (deepseek_v2, "DeepseekV2ForCausalLM", DEEPSEEK | {"q_lora_rank": 32, "rope_scaling": YARN}),
    "gemma": (gemma, "GemmaForCausalLM", GEMMA | {"model_type": "gemma"}),
    "gemma2": (
        gemma2,
        "Gemma2ForCausalLM",
        GEMMA
        | {
            "model_type": "gemma2",
            "query_pre_attn_scalar": 24,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 3.0,
            "sliding_window": 128,
        },
    ),
    # Windows that are full long before the prompt has ended.
    "gemma3": (
        gemma3_text,
        "Gemma3ForCausalLM",
        GEMMA
        | {
            "model_type": "gemma3_text",
            "num_hidden_layers": 4,
            "query_pre_attn_scalar": 24,
            "sliding_window": 16,
            "sliding_window_pattern": 2,
            "rope_theta": 1e6,
            "rope_local_base_freq": 1e4,
        },
    ),
    "glm4": (glm4, "Glm4ForCausalLM", {"model_type": "glm4", "head_dim": 16, "partial_rotary_factor": 0.5, "attention_bias": True}),
    "gpt-bigcode": (
        gpt_bigcode,
        "GPTBigCodeForCausalLM",
        {
            "model_type": "gpt_bigcode",
            "n_embd": 64,
            "n_head": 4,
            "n_layer": 3,
            "n_inner": 160,
            # More than are run, of which there is a table each.
            "n_positions": 4200,
            "layer_norm_epsilon": 1e-5,
            "multi_query": True,
            "attention_bias": True,
            "mlp_bias": True,
            "num_key_value_heads": None,
            "activation_function": "gelu_pytorch_tanh",
            "tie_word_embeddings": True,
        },
    ),
    "granite": (granite, "GraniteForCausalLM", MULTIPLIERS | {"model_type": "granite"}),
    "granite4": (
        granitemoehybrid,
        "GraniteMoeHybridForCausalLM",
        MULTIPLIERS
        | {
            "model_type": "granitemoehybrid",
            "num_local_experts": 0,
            "shared_intermediate_size": 160,
            "layer_types": ["attention"] * 3,
            "position_embedding_type": "rope",
        },
    ),
    "helium": (helium, "HeliumForCausalLM", {"model_type": "helium", "head_dim": 16}),
    "lfm2": (lfm2, "Lfm2ForCausalLM", LFM2 | {"layer_types": ["conv", "full_attention", "conv"]}),
    "lfm2-older": (lfm2, "Lfm2ForCausalLM", LFM2 | {"num_hidden_layers": 4, "full_attn_idxs": [1, 3]}),
    "mamba": (
        mamba,
        "MambaForCausalLM",
        {
            "model_type": "mamba",
            "intermediate_size": 128,
            "state_size": 16,
            "conv_kernel": 4,
            "expand": 2,
            "time_step_rank": 4,
            "use_bias": False,
            "use_conv_bias": True,
            "tie_word_embeddings": True,
        },
    ),
    "mamba2": (
        mamba2,
        "Mamba2ForCausalLM",
        {
            "model_type": "mamba2",
            "num_heads": 8,
            "head_dim": 16,
            "n_groups": 2,
            "state_size": 24,
            "conv_kernel": 4,
            "expand": 2,
            "use_bias": False,
            "use_conv_bias": True,
            "layer_norm_epsilon": 1e-5,
            "time_step_rank": 4,
            # As Python writes it, which JSON does not know.
            "time_step_limit": [0.0, float("inf")],
            "tie_word_embeddings": True,
        },
    ),
    "mixtral": (
        mixtral,
        "MixtralForCausalLM",
        {"model_type": "mixtral", "num_local_experts": 6, "num_experts_per_tok": 2, "sliding_window": None},
    ),
    "olmo": (olmo, "OlmoForCausalLM", {"model_type": "olmo", "clip_qkv": None}),
    "olmo-clipped": (olmo, "OlmoForCausalLM", {"model_type": "olmo", "clip_qkv": 1.5, "tie_word_embeddings": True}),
    "olmo2": (olmo2, "Olmo2ForCausalLM", {"model_type": "olmo2", "head_dim": 16}),
    "phi": (
        phi,
        "PhiForCausalLM",
        {"model_type": "phi", "partial_rotary_factor": 0.5, "layer_norm_eps": 1e-5, "hidden_act": "gelu_new"},
    ),
    "phi3": (phi3, "Phi3ForCausalLM", {"model_type": "phi3", "sliding_window": 200}),
    "phi3-long": (
        phi3,
        "Phi3ForCausalLM",
        {
            "model_type": "phi3",
            "partial_rotary_factor": 0.75,
            "original_max_position_embeddings": 128,
            "rope_scaling": {"type": "longrope", "short_factor": FACTORS, "long_factor": FACTORS},
        },
    ),
    "qwen2-moe": (
        qwen2_moe,
        "Qwen2MoeForCausalLM",
        EXPERTS | {"model_type": "qwen2_moe", "shared_expert_intermediate_size": 80, "norm_topk_prob": False},
    ),
    "qwen3-moe": (
        qwen3_moe,
        "Qwen3MoeForCausalLM",
        EXPERTS | {"model_type": "qwen3_moe", "head_dim": 32, "norm_topk_prob": True, "mlp_only_layers": []},
    ),
    "recurrent-gemma": (
        recurrent_gemma,
        "RecurrentGemmaForCausalLM",
        {
            "model_type": "recurrent_gemma",
            "num_key_value_heads": 1,
            "head_dim": 16,
            "conv1d_width": 4,
            "logits_soft_cap": 3.0,
            "attention_window_size": 128,
            "block_types": ["recurrent", "recurrent", "attention"],
            "hidden_activation": "gelu_pytorch_tanh",
            "partial_rotary_factor": 0.5,
            "tie_word_embeddings": True,
        },
    ),
    # The third layer's positions are not turned, by a list or by every how many it is.
    "smollm3": (smollm3, "SmolLM3ForCausalLM", SMOLLM3 | {"no_rope_layers": [1, 1, 0, 1]}),
    "smollm3-multi-head": (smollm3, "SmolLM3ForCausalLM", SMOLLM3 | {"num_key_value_heads": 4, "no_rope_layer_interval": 3}),
    "stablelm": (stablelm, "StableLmForCausalLM", STABLELM | {"use_qkv_bias": False}),
    "stablelm-bias": (stablelm, "StableLmForCausalLM", STABLELM | {"use_qkv_bias": True, "partial_rotary_factor": 0.5}),
    "starcoder2": (
        starcoder2,
        "Starcoder2ForCausalLM",
        {"model_type": "starcoder2", "norm_epsilon": 1e-5, "hidden_act": "gelu_pytorch_tanh", "tie_word_embeddings": True},
    ),
}


def config_of(shape, **more):
    _, architecture, special = SHAPES[shape]
    return COMMON | special | {"architectures": [architecture]} | more


def write_folder(folder, shape, **more):
    """A model folder as Hugging Face lays it out."""
    folder.mkdir(parents=True)
    config = config_of(shape, **more)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    save_file(random_weights(shape, config), folder / "model.safetensors", metadata={"format": "pt"})
    write_tokenizer(folder, config["vocab_size"])
    return folder


def arguments(family, config):
    """What MLX wants besides, which the files of this family leave to others."""
    usual = {"max_position_embeddings": 256, "rope_scaling": None}
    return family.ModelArgs.from_dict(usual | config)


def random_weights(shape, config):
    """Those that MLX would have, by the names that the folder has."""
    random = np.random.default_rng(20260102)
    family, *_ = SHAPES[shape]
    tied = config["tie_word_embeddings"]
    weights = {}
    for name, like in tree_flatten(family.Model(arguments(family, config)).parameters()):
        if (name == "lm_head.weight" and tied) or name.endswith(".most"):
            continue
        noise = random.standard_normal(like.shape)
        if name.endswith(".bias"):
            value = 0.3 * noise
        elif like.ndim == 1:
            # Gemma's norms stand for one more.
            value = 0.1 * noise + (0 if config["model_type"].startswith("gemma") else 1)
            value = value + 3 if "post_" in name and config["model_type"].startswith("gemma") else value
        else:
            value = noise / np.sqrt(like.shape[-1])
        if any(part in name for part in MIXING) and not name.endswith(".bias"):
            value = 4 * value
        weights |= folder_names(name, value.astype(np.float32))
    if config["model_type"] == "granitemoehybrid":
        for layer in range(config["num_hidden_layers"]):
            inner, outer = (f"model.layers.{layer}.{part}" for part in ("mlp", "shared_mlp"))
            both = [weights.pop(f"{inner}.{part}_proj.weight") for part in ("gate", "up")]
            weights[f"{outer}.input_linear.weight"] = np.concatenate(both)
            weights[f"{outer}.output_linear.weight"] = weights.pop(f"{inner}.down_proj.weight")
    return weights


def folder_names(name, value):
    """Experts have a tensor each; a convolution has its window last."""
    if value.ndim == 3 and name.endswith((".conv.weight", ".conv1d.weight", ".conv_1d.weight")):
        return {name: np.ascontiguousarray(np.moveaxis(value, 1, 2))}
    if ".switch_mlp." not in name:
        return {name: value}
    before, after = name.split(".switch_mlp.")
    if ".block_sparse_moe" in before:
        part, kind = after.split(".")
        after = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}[part] + "." + kind
    return {f"{before}.experts.{at}.{after}": np.ascontiguousarray(one) for at, one in enumerate(value)}


def write_gguf(path, shape, packing):
    """A model of this family as GGUF, by llama.cpp's own writer and with widths that can be packed."""
    config = config_of(shape, hidden_size=128, intermediate_size=256, num_attention_heads=4)
    config |= {"head_dim": 32, "query_pre_attn_scalar": 32}
    factors = [1.0 + 0.25 * pair for pair in range(12)]
    if "rope_scaling" in config:
        config["rope_scaling"] = {"type": "longrope", "short_factor": factors, "long_factor": factors}
    kind, family = gguf.GGMLQuantizationType[packing], config["model_type"].removesuffix("_text")
    writer = gguf.GGUFWriter(path, family)
    add_sizes(writer, config, config["head_dim"])
    if config.get("sliding_window"):
        writer.add_sliding_window(config["sliding_window"])
    match family:
        case "gemma2":
            writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
            writer.add_final_logit_softcapping(config["final_logit_softcapping"])
        case "gemma3":
            writer.add_rope_freq_base(config["rope_theta"])
        case "phi3":
            turned = int(config.get("partial_rotary_factor", 1.0) * config["head_dim"])
            first = config.get("original_max_position_embeddings", config["max_position_embeddings"])
            writer.add_rope_dimension_count(turned)
            writer.add_rope_freq_base(config["rope_theta"])
            writer.add_rope_scaling_orig_ctx_len(first)
            if "rope_scaling" in config:
                scale = np.sqrt(1 + np.log(config["max_position_embeddings"] / first) / np.log(first))
                writer.add_rope_scaling_attn_factors(float(scale))
                for length in ("long", "short"):
                    writer.add_tensor(f"rope_factors_{length}.weight", np.array(factors, np.float32))
    add_tokenizer(writer, config["vocab_size"], "gpt-2")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[family.upper()], config["num_hidden_layers"])
    for name, value in random_weights(shape, config).items():
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if value.ndim == 1:
            writer.add_tensor(target, value + 1 if family.startswith("gemma") else value)
        else:
            writer.add_tensor(target, gguf.quants.quantize(value, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


class Other(Independent):
    """The folder, read and run by MLX."""

    def __init__(self, folder, shape):
        config = json.loads((folder / "config.json").read_text())
        family, *_ = SHAPES[shape]
        self.model = family.Model(arguments(family, config))
        weights = {name: mx.array(value) for name, value in load_file(folder / "model.safetensors").items()}
        if hasattr(self.model, "sanitize"):
            weights = self.model.sanitize(weights)
        self.model.load_weights(list(weights.items()), strict=True)

    def logits(self, tokens):
        """Through a cache of MLX's own, which knows the windows."""
        return np.array([self.next(cache, token) for cache in [make_prompt_cache(self.model)] for token in tokens])

    def greedy(self, tokens, count):
        """The tokens that follow, and by how much each was ahead of the next best."""
        cache, chosen, leads = make_prompt_cache(self.model), [], []
        for token in tokens:
            last = self.next(cache, token)
        while len(chosen) < count:
            second, first = np.sort(last)[-2:]
            chosen.append(int(last.argmax()))
            leads.append(float(first - second))
            last = self.next(cache, chosen[-1])
        return chosen, leads

    def next(self, cache, token):
        return np.array(self.model(mx.array([[token]]), cache=cache)[0, -1].astype(mx.float32))
