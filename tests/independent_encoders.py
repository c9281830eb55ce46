"""Small encoders (BERT and its relatives) with random weights as Hugging Face folders, and their states by numpy, from the papers'
formulas and in doubles."""

import json
import math

import numpy as np
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

WIDTH, INNER, HEADS, LAYERS, VOCABULARY = 48, 80, 4, 3, 128
BERT = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "hidden_act": "gelu",
    "max_position_embeddings": 96,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-5,
    "pad_token_id": 0,
    "torch_dtype": "float32",
}
SHAPES = {
    "bert": BERT,
    "xlm-roberta": BERT
    | {"architectures": ["XLMRobertaModel"], "model_type": "xlm-roberta", "type_vocab_size": 1, "pad_token_id": 1},
    "modernbert": {
        "architectures": ["ModernBertModel"],
        "model_type": "modernbert",
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": 4,
        "num_attention_heads": HEADS,
        "max_position_embeddings": 96,
        "norm_eps": 1e-5,
        "global_attn_every_n_layers": 3,
        "global_rope_theta": 160000.0,
        "local_rope_theta": 10000.0,
        "local_attention": 8,
        "pad_token_id": 0,
    },
    "nomic": {
        "architectures": ["NomicBertModel"],
        "model_type": "nomic_bert",
        "vocab_size": VOCABULARY,
        "n_embd": WIDTH,
        "n_inner": INNER,
        "n_layer": LAYERS,
        "n_head": HEADS,
        "n_positions": 96,
        "type_vocab_size": 2,
        "layer_norm_epsilon": 1e-5,
        "rotary_emb_base": 1000,
        "rotary_emb_fraction": 1.0,
        "rotary_emb_interleaved": False,
        "qkv_proj_bias": False,
        "mlp_fc1_bias": False,
        "mlp_fc2_bias": False,
        "activation_function": "swiglu",
        "prenorm": False,
    },
}


def tensors(shape):
    """The names and sizes of a folder's weights."""
    config = SHAPES[shape]
    sizes = {}

    def linear(name, out, into, bias=True):
        sizes[f"{name}.weight"] = (out, into)
        if bias:
            sizes[f"{name}.bias"] = (out,)

    def norm(name, bias=True):
        sizes[f"{name}.weight"] = (WIDTH,)
        if bias:
            sizes[f"{name}.bias"] = (WIDTH,)

    if shape == "modernbert":
        sizes["embeddings.tok_embeddings.weight"] = (VOCABULARY, WIDTH)
        norm("embeddings.norm", bias=False)
        for layer in range(config["num_hidden_layers"]):
            name = f"layers.{layer}"
            if layer:
                norm(f"{name}.attn_norm", bias=False)
            linear(f"{name}.attn.Wqkv", 3 * WIDTH, WIDTH, bias=False)
            linear(f"{name}.attn.Wo", WIDTH, WIDTH, bias=False)
            norm(f"{name}.mlp_norm", bias=False)
            linear(f"{name}.mlp.Wi", 2 * INNER, WIDTH, bias=False)
            linear(f"{name}.mlp.Wo", WIDTH, INNER, bias=False)
        norm("final_norm", bias=False)
        return sizes
    sizes["embeddings.word_embeddings.weight"] = (VOCABULARY, WIDTH)
    sizes["embeddings.token_type_embeddings.weight"] = (config["type_vocab_size"], WIDTH)
    if shape == "nomic":
        norm("emb_ln")
        for layer in range(LAYERS):
            name = f"encoder.layers.{layer}"
            linear(f"{name}.attn.Wqkv", 3 * WIDTH, WIDTH, bias=False)
            linear(f"{name}.attn.out_proj", WIDTH, WIDTH, bias=False)
            linear(f"{name}.mlp.fc11", INNER, WIDTH, bias=False)
            linear(f"{name}.mlp.fc12", INNER, WIDTH, bias=False)
            linear(f"{name}.mlp.fc2", WIDTH, INNER, bias=False)
            norm(f"{name}.norm1")
            norm(f"{name}.norm2")
        return sizes
    sizes["embeddings.position_embeddings.weight"] = (config["max_position_embeddings"], WIDTH)
    norm("embeddings.LayerNorm")
    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}"
        for part in ("query", "key", "value"):
            linear(f"{name}.attention.self.{part}", WIDTH, WIDTH)
        linear(f"{name}.attention.output.dense", WIDTH, WIDTH)
        norm(f"{name}.attention.output.LayerNorm")
        linear(f"{name}.intermediate.dense", INNER, WIDTH)
        linear(f"{name}.output.dense", WIDTH, INNER)
        norm(f"{name}.output.LayerNorm")
    return sizes


def write_folder(folder, shape, pooling=None, outer="", **more):
    """A folder as sentence-transformers has it. `outer` stands before the names of its tensors, as in models for other tasks."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(20260103)
    weights = {}
    for name, size in tensors(shape).items():
        noise = random.standard_normal(size)
        is_norm = len(size) == 1 and name.endswith(".weight")
        value = 1 + 0.1 * noise if is_norm else 0.2 * noise if len(size) == 1 else noise / np.sqrt(size[-1])
        weights[outer + name] = value.astype(np.float32)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(SHAPES[shape] | more))
    words = {f"w{at}": at for at in range(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w3"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    # As BERT's: something before a text and after it.
    tokenizer.post_processor = processors.TemplateProcessing(single="w101 $A w102", special_tokens=[("w101", 101), ("w102", 102)])
    # Which is not to shorten what is asked for.
    tokenizer.enable_truncation(max_length=8)
    tokenizer.enable_padding(length=16, pad_id=0, pad_token="w0")
    tokenizer.save(str(folder / "tokenizer.json"))
    if pooling:
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling/config.json").write_text(json.dumps({f"pooling_mode_{pooling}": True}))
    return folder


class States:
    """The last layer's states."""

    def __init__(self, folder, shape):
        self.shape, self.config = shape, json.loads((folder / "config.json").read_text())
        weights = load_file(folder / "model.safetensors")
        outer = "bert." if "bert.embeddings.word_embeddings.weight" in weights else ""
        outer = "model." if "model.embeddings.norm.weight" in weights else outer
        self.weights = {name.removeprefix(outer): value.astype(np.float64) for name, value in weights.items()}

    def linear(self, name, x):
        return x @ self.weights[f"{name}.weight"].T + self.weights.get(f"{name}.bias", 0.0)

    def norm(self, name, x):
        centred = x - x.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
        return scaled * self.weights[f"{name}.weight"] + self.weights.get(f"{name}.bias", 0.0)

    def __call__(self, tokens):
        return {"modernbert": self.modernbert, "nomic": self.nomic}.get(self.shape, self.bert)(np.array(tokens))

    def bert(self, tokens):
        first = 0 if self.shape == "bert" else self.config["pad_token_id"] + 1
        x = self.weights["embeddings.word_embeddings.weight"][tokens]
        x = x + self.weights["embeddings.position_embeddings.weight"][first : first + len(tokens)]
        x = self.norm("embeddings.LayerNorm", x + self.weights["embeddings.token_type_embeddings.weight"][0])
        for layer in range(LAYERS):
            name = f"encoder.layer.{layer}"
            q, k, v = (self.linear(f"{name}.attention.self.{part}", x) for part in ("query", "key", "value"))
            seen = self.linear(f"{name}.attention.output.dense", attention(q, k, v))
            x = self.norm(f"{name}.attention.output.LayerNorm", x + seen)
            inner = gelu(self.linear(f"{name}.intermediate.dense", x))
            x = self.norm(f"{name}.output.LayerNorm", x + self.linear(f"{name}.output.dense", inner))
        return x

    def nomic(self, tokens):
        x = self.weights["embeddings.word_embeddings.weight"][tokens]
        x = self.norm("emb_ln", x + self.weights["embeddings.token_type_embeddings.weight"][0])
        for layer in range(LAYERS):
            name = f"encoder.layers.{layer}"
            q, k, v = np.split(self.linear(f"{name}.attn.Wqkv", x), 3, axis=-1)
            seen = attention(turned(q, 1000.0), turned(k, 1000.0), v)
            x = self.norm(f"{name}.norm1", x + self.linear(f"{name}.attn.out_proj", seen))
            gate = self.linear(f"{name}.mlp.fc12", x)
            inner = self.linear(f"{name}.mlp.fc11", x) * gate / (1 + np.exp(-gate))
            x = self.norm(f"{name}.norm2", x + self.linear(f"{name}.mlp.fc2", inner))
        return x

    def modernbert(self, tokens):
        x = self.norm("embeddings.norm", self.weights["embeddings.tok_embeddings.weight"][tokens])
        for layer in range(self.config["num_hidden_layers"]):
            name = f"layers.{layer}"
            near = layer % 3 != 0
            base = 10000.0 if near else 160000.0
            normed = self.norm(f"{name}.attn_norm", x) if layer else x
            q, k, v = np.split(self.linear(f"{name}.attn.Wqkv", normed), 3, axis=-1)
            seen = attention(turned(q, base), turned(k, base), v, self.config["local_attention"] // 2 if near else None)
            x = x + self.linear(f"{name}.attn.Wo", seen)
            inner, gate = np.split(self.linear(f"{name}.mlp.Wi", self.norm(f"{name}.mlp_norm", x)), 2, axis=-1)
            x = x + self.linear(f"{name}.mlp.Wo", gelu(inner) * gate)
        return self.norm("final_norm", x)


def gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def by_heads(x):
    return x.reshape(len(x), HEADS, -1).swapaxes(0, 1)


def turned(x, base):
    """By their positions, the first half of a head with the second."""
    heads = by_heads(x)
    half = heads.shape[-1] // 2
    angles = np.outer(np.arange(len(x)), base ** (-np.arange(half) / half))
    cos, sin = np.cos(angles), np.sin(angles)
    first, second = heads[..., :half], heads[..., half:]
    heads = np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return heads.swapaxes(0, 1).reshape(x.shape)


def attention(q, k, v, reach=None):
    """Of all tokens to all tokens, or to those within reach."""
    scores = by_heads(q) @ by_heads(k).swapaxes(-1, -2) / math.sqrt(q.shape[-1] // HEADS)
    if reach is not None:
        apart = np.abs(np.subtract.outer(np.arange(len(q)), np.arange(len(q))))
        scores = np.where(apart <= reach, scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights = weights / weights.sum(axis=-1, keepdims=True)
    return (weights @ by_heads(v)).swapaxes(0, 1).reshape(q.shape)
