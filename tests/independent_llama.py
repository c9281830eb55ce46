"""Small models (Llama, Qwen2, Qwen3) with random weights as Hugging Face folders, and what MLX computes with them.

MLX is another implementation in every part: other kernels, other rotary code, another reader of the same files.
"""

import json
import os

os.environ.setdefault("MLX_DISABLE_COMPILE", "1")

import gguf
import mlx.core as mx
import numpy as np
from mlx_lm.models import llama, qwen2, qwen3
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers

mx.set_default_device(mx.cpu)

BASE = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "bos_token_id": 0,
    "eos_token_id": 1,
}

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}

YARN_ROPE = {"type": "yarn", "rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64}

SHAPES = {
    "multi-head": {},
    "grouped-query": {"num_attention_heads": 8, "num_key_value_heads": 2},
    "one-key-head-tied": {"num_key_value_heads": 1, "tie_word_embeddings": True},
    "wide-heads": {"head_dim": 32, "num_key_value_heads": 2, "rms_norm_eps": 1e-6},
    "llama3-positions": {"num_key_value_heads": 2, "rope_theta": 500000.0, "rope_scaling": LLAMA3_ROPE},
    "yarn-positions": {"num_key_value_heads": 2, "rope_scaling": YARN_ROPE},
    "linear-positions": {"rope_scaling": {"type": "linear", "rope_type": "linear", "factor": 4.0}},
    "qwen2": {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "num_key_value_heads": 2},
    "qwen3": {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "num_key_value_heads": 2, "head_dim": 32},
}

FAMILIES = {"llama": llama, "qwen2": qwen2, "qwen3": qwen3}


def write_folder(folder, shape):
    """A model folder as Hugging Face lays it out."""
    folder.mkdir(parents=True)
    config = BASE | SHAPES[shape]
    save_file(random_weights(config), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    write_tokenizer(folder, config["vocab_size"])
    return folder


def write_tokenizer(folder, count):
    """A word for each token."""
    words = {f"w{i}": i for i in range(count)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))


def damage(folder, token):
    """Makes the model fail wherever it reads this token."""
    weights = load_file(folder / "model.safetensors")
    weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"].copy()
    weights["model.embed_tokens.weight"][token] = np.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def store(folder, kind, files):
    """Makes its weights numbers of this kind, in so many files; what they are now, as MLX runs them."""
    weights = {name: mx.array(value).astype(getattr(mx, kind)) for name, value in load_file(folder / "model.safetensors").items()}
    left = {name: np.array(value.astype(mx.float32)) for name, value in weights.items()}
    save_file(left, folder / "model.safetensors", metadata={"format": "pt"})
    independent = Independent(folder)
    (folder / "model.safetensors").unlink()
    places = {name: f"model-{at % files + 1:05}-of-{files:05}.safetensors" for at, name in enumerate(weights)}
    for file in set(places.values()):
        mx.save_safetensors(str(folder / file), {name: weights[name] for name in weights if places[name] == file}, {"format": "pt"})
    index = {"metadata": {"total_size": sum(value.nbytes for value in weights.values())}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return independent


def write_gguf(folder, path, packing):
    """The same model as GGUF, by llama.cpp's own writer. The folder then holds what is left of the weights once packed."""
    config = json.loads((folder / "config.json").read_text())
    kind = gguf.GGMLQuantizationType[packing]
    family = config["model_type"]
    writer = gguf.GGUFWriter(path, family)
    head = config.get("head_dim", config["hidden_size"] // config["num_attention_heads"])
    add_sizes(writer, config, head)
    writer.add_rope_freq_base(config["rope_theta"])
    if "rope_scaling" in config:
        scaling = config["rope_scaling"]
        writer.add_rope_scaling_type(gguf.RopeScalingType(scaling["rope_type"]))
        writer.add_rope_scaling_factor(scaling["factor"])
        if "original_max_position_embeddings" in scaling:
            writer.add_rope_scaling_orig_ctx_len(scaling["original_max_position_embeddings"])
    add_tokenizer(writer, config["vocab_size"], "gpt-2" if family == "llama" else "qwen2")

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[family.upper()], config["num_hidden_layers"])
    weights = load_file(folder / "model.safetensors")
    for name, value in weights.items():
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
        turned = heads.get(name.split(".")[-2]) if family == "llama" else None
        data = side_by_side(value, turned) if turned else value
        if value.ndim == 1:
            writer.add_tensor(target, data)
            continue
        packed = gguf.quants.quantize(data, kind)
        writer.add_tensor(target, packed, raw_dtype=kind)
        left = gguf.quants.dequantize(packed, kind).astype(np.float32)
        weights[name] = half_apart(left, turned) if turned else left
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save_file({name: np.ascontiguousarray(value) for name, value in weights.items()}, folder / "model.safetensors")
    return path


def add_sizes(writer, config, head):
    """What a decoder of any family says of itself; `head` is the width of one."""
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])


def add_tokenizer(writer, count, pre):
    """Bytes of ASCII, two merges, and what fills up the vocabulary; its tokens."""
    tokens = ["<s>", "</s>", "\u0120", *(chr(code) for code in range(33, 127)), "th", "the"]
    tokens += [f"<unused{i}>" for i in range(count - len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token.startswith("<") and len(token) > 1 else 1 for token in tokens])
    writer.add_token_merges(["t h", "th e"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    return tokens


def side_by_side(weight, heads):
    """Rotary pairs as GGUF lays them out."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def half_apart(weight, heads):
    """And back."""
    return weight.reshape(heads, -1, 2, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def random_weights(config):
    random = np.random.default_rng(20260101)
    hidden, inner, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    head = config.get("head_dim", hidden // config["num_attention_heads"])
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head

    def matrix(out, into):
        return (random.standard_normal((out, into)) / np.sqrt(into)).astype(np.float32)

    def norm(size=hidden):
        return (1 + 0.1 * random.standard_normal(size)).astype(np.float32)

    weights = {"model.embed_tokens.weight": matrix(vocabulary, hidden)}
    for layer in range(config["num_hidden_layers"]):
        shapes = {
            "self_attn.q_proj": (queries, hidden),
            "self_attn.k_proj": (keys, hidden),
            "self_attn.v_proj": (keys, hidden),
            "self_attn.o_proj": (hidden, queries),
            "mlp.gate_proj": (inner, hidden),
            "mlp.up_proj": (inner, hidden),
            "mlp.down_proj": (hidden, inner),
        }
        for name, shape in shapes.items():
            weights[f"model.layers.{layer}.{name}.weight"] = matrix(*shape)
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"model.layers.{layer}.{name}.weight"] = norm()
        if config["model_type"] == "qwen2":
            for name, size in (("q_proj", queries), ("k_proj", keys), ("v_proj", keys)):
                bias = (0.3 * random.standard_normal(size)).astype(np.float32)
                weights[f"model.layers.{layer}.self_attn.{name}.bias"] = bias
        if config["model_type"] == "qwen3":
            for name in ("q_norm", "k_norm"):
                weights[f"model.layers.{layer}.self_attn.{name}.weight"] = norm(head)
    weights["model.norm.weight"] = norm()
    if not config["tie_word_embeddings"]:
        weights["lm_head.weight"] = matrix(vocabulary, hidden)
    return weights


class Independent:
    """The folder, read and run by MLX."""

    def __init__(self, folder):
        config = json.loads((folder / "config.json").read_text())
        family = FAMILIES[config["model_type"]]
        self.model = family.Model(family.ModelArgs.from_dict(config))
        weights = {name: mx.array(value) for name, value in load_file(folder / "model.safetensors").items()}
        self.model.load_weights(list(self.model.sanitize(weights).items()), strict=True)

    def logits(self, tokens):
        """One row for each position, computed at once and without a cache."""
        return np.array(self.model(mx.array([tokens]))[0].astype(mx.float32))

    def greedy(self, tokens, count):
        """The tokens that follow, and by how much each was ahead of the next best."""
        tokens, chosen, leads = list(tokens), [], []
        for _ in range(count):
            last = self.logits(tokens)[-1]
            second, first = np.sort(last)[-2:]
            chosen.append(int(last.argmax()))
            leads.append(float(first - second))
            tokens.append(chosen[-1])
        return chosen, leads
