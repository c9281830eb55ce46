"""llama.cpp itself, as the wheel `xllamacpp` brings it, over its own HTTP API: a program of its own, so that whatever happens
in it ends no test run. `python llama_cpp.py FILE.gguf [SLOTS]` serves until its input ends and prints its address first."""

import subprocess
import sys
from contextlib import contextmanager

import httpx


@contextmanager
def serving(file, slots=1):
    """A client of llama.cpp with this file."""
    command = [sys.executable, __file__, str(file), str(slots)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        address = next((line.split()[1] for line in process.stdout if line.startswith("serving ")), None)
        assert address, f"llama.cpp ended with {process.wait()} and does not take {file}"
        with httpx.Client(base_url=address, timeout=120, trust_env=False) as client:
            yield client
    finally:
        process.kill()
        process.wait()


def greedy(client, tokens, count):
    """The tokens that follow, and by how much each is ahead of the next best, in logarithms of probabilities."""
    ask = {"prompt": list(tokens), "n_predict": count, "temperature": 0, "n_probs": 2, "cache_prompt": False}
    answer = client.post("/completion", json=ask)
    answer.raise_for_status()
    told = answer.json()["completion_probabilities"]
    leads = [place["top_logprobs"][0]["logprob"] - place["top_logprobs"][1]["logprob"] for place in told]
    return [place["id"] for place in told], leads


def tokenize(client, text):
    """The tokens of a text, with what the file wants around it, and special tokens by their names."""
    answer = client.post("/tokenize", json={"content": text, "add_special": True, "parse_special": True})
    answer.raise_for_status()
    return answer.json()["tokens"]


def serve(file, slots):
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = file
    params.n_ctx = 256 * slots
    params.n_parallel = slots
    params.n_gpu_layers = 0
    params.warmup = False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.ctx_shift = False
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.fit_params = False
    params.port = 0
    server = xllamacpp.Server(params)
    print("serving", server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
