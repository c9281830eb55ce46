"""The same GGUF files in the gateway and in llama.cpp: every packing that the gateway has kernels for, rotary positions that are
stretched, and SentencePiece's vocabularies. The weights are random, and so are the bytes of their packings."""

import json
import random
from concurrent.futures import ThreadPoolExecutor

import gguf
import numpy as np
import pytest

llama_cpp = pytest.importorskip("llama_cpp")
pytest.importorskip("xllamacpp")

from independent_families import write_gguf as write_family  # noqa: E402
from independent_llama import SHAPES, add_tokenizer, write_folder, write_gguf  # noqa: E402

HIDDEN, INNER, VOCABULARY, HEADS, LAYERS = 256, 512, 128, 4, 2
FOLLOWING = 16
KINDS = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_K", "Q5_K", "Q6_K"]
# llama.cpp rounds what it multiplies packed weights with to bytes; the gateway does not.
TOLERANCE = {"F32": 0.01, "F16": 0.02, "BF16": 0.1}
ROUGH = 0.25
NAMES = [" ", *(chr(code) for code in range(33, 127)), "th", "the"]
IDS = {name: at + 2 for at, name in enumerate(NAMES)} | {"<s>": 0, "</s>": 1}
IDS |= {f"<unused{at}>": len(NAMES) + 2 + at for at in range(VOCABULARY - len(NAMES) - 2)}


def packed(generator, rows, columns, kind):
    """A matrix with as many numbers of mean 0 and about 1 / sqrt(columns) wide, packed."""
    size = 1 / np.sqrt(columns)
    if kind not in ("Q4_K", "Q5_K", "Q6_K"):
        matrix = (generator.standard_normal((rows, columns)) * size).astype(np.float32)
        return gguf.quants.quantize(matrix, gguf.GGMLQuantizationType[kind])
    blocks = rows * columns // 256
    scale = lambda factor: (np.full((blocks, 1), size * factor, np.float16)).view(np.uint8)  # noqa: E731
    noise = lambda count: generator.integers(0, 256, (blocks, count), np.uint8)  # noqa: E731
    match kind:
        # As many above as below what is taken off.
        case "Q4_K":
            parts = [scale(1 / 190), scale(7.5 / 190), noise(12), noise(128)]
        case "Q5_K":
            parts = [scale(1 / 400), scale(15.5 / 400), noise(12), noise(32), noise(128)]
        case "Q6_K":
            parts = [noise(128), noise(64), noise(16), scale(1 / 1400)]
    return np.concatenate(parts, axis=1).reshape(rows, -1)


def write_packed(path, kind):
    """A Llama whose matrices are all of one kind."""
    generator = np.random.default_rng(11)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(256)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INNER)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    add_tokenizer(writer, VOCABULARY, "gpt-2")

    def matrix(name, rows, columns):
        writer.add_tensor(name, packed(generator, rows, columns, kind), raw_dtype=gguf.GGMLQuantizationType[kind])

    def norm(name, scale=1.0):
        writer.add_tensor(name, (scale * (1 + 0.1 * generator.standard_normal(HIDDEN))).astype(np.float32))

    matrix("token_embd.weight", VOCABULARY, HIDDEN)
    matrix("output.weight", VOCABULARY, HIDDEN)
    # So that some tokens are far ahead of others.
    norm("output_norm.weight", 4.0)
    for layer in range(LAYERS):
        keys = HIDDEN // HEADS * 2
        for name, rows, columns in [
            ("attn_q", HIDDEN, HIDDEN),
            ("attn_k", keys, HIDDEN),
            ("attn_v", keys, HIDDEN),
            ("attn_output", HIDDEN, HIDDEN),
            ("ffn_gate", INNER, HIDDEN),
            ("ffn_up", INNER, HIDDEN),
            ("ffn_down", HIDDEN, INNER),
        ]:
            matrix(f"blk.{layer}.{name}.weight", rows, columns)
        norm(f"blk.{layer}.attn_norm.weight")
        norm(f"blk.{layer}.ffn_norm.weight")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def prompts(count):
    generator = random.Random(5)
    return [[generator.randrange(2, 100) for _ in range(generator.randrange(1, 70))] for _ in range(count)]


def ours(gateway, model, prompt):
    ask = {"model": model, "prompt": prompt, "max_tokens": FOLLOWING, "temperature": 0, "logprobs": 1}
    answer = gateway.http.post("/v1/completions", json=ask)
    assert answer.status_code == 200, answer.text
    return [IDS[name] for name in answer.json()["choices"][0]["logprobs"]["tokens"]]


def agree(gateway, model, file, tolerance, count=8):
    """Alone and all at a time, as far as llama.cpp is sure of itself."""
    asks = prompts(count)
    alone = [ours(gateway, model, prompt) for prompt in asks]
    with ThreadPoolExecutor(count) as pool:
        together = list(pool.map(lambda prompt: ours(gateway, model, prompt), asks))
    assert together == alone
    compared, different = 0, set()
    with llama_cpp.serving(file) as client:
        for prompt, tokens in zip(asks, alone):
            theirs, leads = llama_cpp.greedy(client, prompt, FOLLOWING)
            decided = next((at for at, lead in enumerate(leads) if lead <= tolerance), len(leads))
            assert tokens[:decided] == theirs[:decided], f"of {leads}"
            compared += decided
            different |= set(theirs[:decided])
    assert compared >= count and len(different) > 4, f"too little to compare: {compared}, {different}"


@pytest.mark.parametrize("kind", KINDS)
def test_each_packing_gives_the_same_greedy_tokens(tmp_path, start_gateway, kind):
    file = write_packed(tmp_path / "packed.gguf", kind)
    gateway = start_gateway(arguments=["--model", file])
    agree(gateway, "packed", file, TOLERANCE.get(kind, ROUGH))


@pytest.mark.parametrize("shape", ["gemma", "gemma2", "gemma3", "phi3", "phi3-long"])
@pytest.mark.parametrize("kind", ["F32", "Q8_0"])
def test_each_family_that_runs_one_sequence_at_a_time_does(tmp_path, start_gateway, shape, kind):
    """With a window that is full before the prompt has ended, and factors for positions."""
    file = write_family(tmp_path / "model.gguf", shape, kind)
    gateway = start_gateway(arguments=["--model", file])
    assert "one sequence at a time" in gateway.log()
    # Ours are unpacked; llama.cpp rounds what it multiplies them with.
    agree(gateway, "model", file, 0.01 if kind == "F32" else 0.1)


@pytest.mark.parametrize("shape", ["yarn-positions", "qwen2", "qwen3"])
def test_each_family_and_stretched_positions_do(tmp_path, start_gateway, shape):
    assert shape in SHAPES
    file = write_gguf(write_folder(tmp_path / "folder", shape), tmp_path / "model.gguf", "F32")
    agree(start_gateway(arguments=["--model", file]), "model", file, 0.01)


SPACE = "\u2581"


def write_sentencepiece(path, pieces, **switches):
    """A small Llama with this vocabulary of `(text, score, kind)`."""
    generator = np.random.default_rng(3)
    writer = gguf.GGUFWriter(path, "llama")
    hidden = 32
    writer.add_context_length(256)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(hidden)
    writer.add_block_count(1)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([text for text, _, _ in pieces])
    writer.add_token_scores([score for _, score, _ in pieces])
    writer.add_token_types([kind for _, _, kind in pieces])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    for name, value in switches.items():
        getattr(writer, f"add_{name}")(value)
    count = len(pieces)
    shapes = {"token_embd": (count, hidden), "output": (count, hidden)}
    shapes |= {f"blk.0.{name}": (hidden, hidden) for name in ("attn_q", "attn_k", "attn_v", "attn_output")}
    shapes |= {f"blk.0.{name}": (hidden, hidden) for name in ("ffn_gate", "ffn_up", "ffn_down")}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", generator.standard_normal(shape).astype(np.float32))
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(hidden, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def vocabulary():
    """As SentencePiece trains one: pieces of words by how often they come, in the order in which they would be joined."""
    words = "the token of a trace is read then written there and the gateway prices tokens in the order they came".split()
    known = {}
    for word in words:
        text = SPACE + word
        for size in range(2, len(text) + 1):
            for at in range(len(text) - size + 1):
                piece = text[at : at + size]
                known[piece] = known.get(piece, 0) + 1
    pieces = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3)]
    pieces += [(f"<0x{byte:02X}>", 0.0, 6) for byte in range(256)]
    # Gemma's runs of spaces and of line ends are tokens of their own too.
    pieces += [("<|user|>", 0.0, 4), (SPACE * 2, 0.0, 4), (SPACE * 3, 0.0, 4), ("\n\n", 0.0, 4)]
    often = sorted(known, key=lambda piece: (-known[piece], len(piece), piece))
    pieces += [(piece, -float(rank), 1) for rank, piece in enumerate(often)]
    letters = sorted(set("".join(words)) | {SPACE, "é", "😀"})
    return pieces + [(letter, -float(len(often) + rank), 1) for rank, letter in enumerate(letters)]


TEXTS = [
    "the token",
    " the  token   is",
    "   the    token     is\n\n\nthen",
    "then\n\nthere\tand",
    "thé 😀 tokens, 日本語!",
    "a</s>the<s> token<|user|>the gateway<|user|> of",
    "tttheheee",
    "x",
    "  ",
    "<0x41>the",
    f"written{SPACE}there",
]


@pytest.mark.parametrize("switches", [{}, {"add_bos_token": False, "add_eos_token": True}, {"add_space_prefix": False}], ids=str)
def test_texts_become_the_same_tokens_of_sentencepiece(tmp_path, start_gateway, switches):
    file = write_sentencepiece(tmp_path / "pieces.gguf", vocabulary(), **switches)
    gateway = start_gateway(arguments=["--model", file])
    generator = random.Random(9)
    made = ["".join(generator.choice("the token of a é\n日") for _ in range(generator.randrange(1, 40))) for _ in range(60)]
    with llama_cpp.serving(file) as client:
        for text in TEXTS + made:
            answer = gateway.http.post("/tokenize", json={"model": "pieces", "prompt": text}).json()
            assert answer["tokens"] == llama_cpp.tokenize(client, text), repr(text)
    # A space is put before a text, and before what follows a token of its own; only the first is taken away again.
    plain = [text for text in made if not text.startswith(" ") and "\n\n" not in text]
    assert len(plain) > 20
    for text in plain:
        ids = gateway.http.post("/tokenize", json={"model": "pieces", "prompt": text, "add_special_tokens": False}).json()["tokens"]
        assert gateway.http.post("/detokenize", json={"model": "pieces", "tokens": ids}).json()["prompt"] == text
    stream = gateway.http.post("/v1/completions", json={"model": "pieces", "prompt": "the token", "max_tokens": 40, "seed": 1, "stream": True})
    lines = [line.removeprefix("data: ") for line in stream.text.splitlines() if line.startswith("data: {")]
    whole = gateway.complete(model="pieces", prompt="the token", max_tokens=40, seed=1)["text"]
    assert "".join(json.loads(line)["choices"][0]["text"] for line in lines) == whole
