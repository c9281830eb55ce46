"""llama.cpp's server for the benchmark of the engine: a line of work in, a line of what it took out.

Usage: llama_cpp.py FILE.gguf THREADS. Work is {"prompts": [[token, ...], ...], "written": tokens}; all
prompts are asked for at once.
"""

import json
import resource
import sys
import threading
import time

import xllamacpp

SEQUENCES = 16
CONTEXT = 1024


def server(model: str, threads: int) -> xllamacpp.Server:
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.n_parallel = SEQUENCES
    params.n_ctx = SEQUENCES * CONTEXT
    params.n_gpu_layers = 0
    params.cache_ram_mib = 0
    params.fit_params = False
    params.ui = False
    params.verbosity = 0
    return xllamacpp.Server(params)


def processor_seconds() -> float:
    spent = resource.getrusage(resource.RUSAGE_SELF)
    return spent.ru_utime + spent.ru_stime


def turn(llama: xllamacpp.Server, prompts: list, written: int) -> dict:
    ends: list = [None] * len(prompts)

    def ask(number: int) -> None:
        answer = llama.handle_completions(
            {
                "prompt": prompts[number],
                "n_predict": written,
                "temperature": 0.0,
                "ignore_eos": True,
                "cache_prompt": False,
                "timings_per_token": True,
            }
        )
        answer = json.loads(answer) if isinstance(answer, (str, bytes)) else answer
        timings = answer["timings"]
        assert timings["predicted_n"] == written and timings["prompt_n"] == len(prompts[number]), timings
        ends[number] = (time.monotonic(), timings["predicted_ms"] / 1000)

    spent = processor_seconds()
    began = time.monotonic()
    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    last = max(end for end, _ in ends)
    first = sum(end - decode for end, decode in ends) / len(ends)
    return {"first": first - began, "whole": last - began, "processors": processor_seconds() - spent}


def main() -> None:
    llama = server(sys.argv[1], int(sys.argv[2]))
    for line in sys.stdin:
        work = json.loads(line)
        print("taken", json.dumps(turn(llama, work["prompts"], work["written"])), flush=True)


main()
