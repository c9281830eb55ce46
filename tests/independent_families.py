"""Small models of many families with random weights as Hugging Face folders, and what MLX computes with them."""

import json
import os

os.environ.setdefault("MLX_DISABLE_COMPILE", "1")

import gguf
import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.models import gemma, gemma2, gemma3_text, glm4, mixtral, olmo2, phi3, qwen2_moe, qwen3_moe, starcoder2
from mlx_lm.models.cache import make_prompt_cache
from safetensors.numpy import load_file, save_file

from independent_llama import BASE, Independent, add_sizes, add_tokenizer, write_tokenizer

mx.set_default_device(mx.cpu)

COMMON = BASE | {"num_key_value_heads": 2}
GEMMA = {"head_dim": 16, "hidden_activation": "gelu_pytorch_tanh", "rms_norm_eps": 1e-6, "tie_word_embeddings": True}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 48, "num_experts": 6, "decoder_sparse_step": 1}
# One list for both lengths: MLX takes the long one always, and we the short one.
FACTORS = [1.0 + 0.25 * pair for pair in range(6)]

SHAPES = {
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
    "mixtral": (
        mixtral,
        "MixtralForCausalLM",
        {"model_type": "mixtral", "num_local_experts": 6, "num_experts_per_tok": 2, "sliding_window": None},
    ),
    "olmo2": (olmo2, "Olmo2ForCausalLM", {"model_type": "olmo2", "head_dim": 16}),
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
        if name == "lm_head.weight" and tied:
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
        # So that what follows depends on more than the last token.
        if any(part in name for part in ("o_proj", "down_proj", "c_proj", "post_", "q_proj")) and not name.endswith(".bias"):
            value = 4 * value
        weights |= folder_names(name, value.astype(np.float32))
    return weights


def folder_names(name, value):
    """Experts have a tensor each."""
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
