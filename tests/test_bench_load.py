"""The load that `vllm bench serve` and tools like it make: many streamed chats and completions at a time, prompts as lists of
parts, and token counts taken from the usage chunk, which is the only one without choices."""

import asyncio
import json

import httpx

STREAMS = 48
TOKENS = 24


def chat(number):
    """As its `openai-chat` backend asks."""
    content = [{"type": "text", "text": f"Question {number}: what is a span, "}, {"type": "text", "text": "and what is a trace?"}]
    limit = {"max_completion_tokens": TOKENS}
    return "/v1/chat/completions", {"messages": [{"role": "user", "content": content}], **limit}


def completion(number):
    """As its `openai` backend asks."""
    limit = {"max_tokens": TOKENS, "repetition_penalty": 1.0, "logprobs": None}
    return "/v1/completions", {"prompt": f"Question {number}: what is a span?", **limit}


async def measure(client, number, base):
    """What one of its requests notes down, in its own way of reading the stream."""
    path, ask = base(number)
    ask |= {"model": "mistral-7b", "temperature": 0.0, "ignore_eos": True}
    ask |= {"stream": True, "stream_options": {"include_usage": True}}
    told, usage, chunks, first = "", None, 0, None
    async with client.stream("POST", path, json=ask, headers={"x-request-id": f"bench-{number}"}) as answer:
        assert answer.status_code == 200, await answer.aread()
        async for line in answer.aiter_lines():
            line = line.strip()
            if not line or line.startswith(":"):
                continue
            data = line.removeprefix("data: ")
            if data == "[DONE]":
                break
            data = json.loads(data)
            assert usage is None, "something came after the usage"
            if choices := data.get("choices"):
                assert data["usage"] is None and len(choices) == 1
                text = choices[0]["delta"].get("content") if "delta" in choices[0] else choices[0].get("text")
                first = first or text
                told += text or ""
                chunks += 1
            else:
                usage = data["usage"]
        else:
            raise AssertionError("it ended without [DONE]")
    return told, usage, chunks


def test_many_streams_at_a_time_are_whole_and_counted(start_gateway):
    gateway = start_gateway(arguments=["--max-running", "8"])

    async def load():
        limits = httpx.Limits(max_connections=STREAMS)
        async with httpx.AsyncClient(base_url=gateway.url, timeout=120, trust_env=False, limits=limits) as client:
            asks = [(number, (chat, completion)[number % 2]) for number in range(STREAMS)]
            together = await asyncio.gather(*(measure(client, number, base) for number, base in asks))
            # Alone, each says the same.
            return together, [await measure(client, number, base) for number, base in asks[:6]]

    together, alone = asyncio.run(load())
    for told, usage, chunks in together:
        assert told and 2 <= chunks <= TOKENS + 2
        assert usage["completion_tokens"] == TOKENS and usage["prompt_tokens"] > 5
        assert usage["total_tokens"] == TOKENS + usage["prompt_tokens"]
    assert [told for told, _, _ in together[:6]] == [told for told, _, _ in alone]
    assert len({told for told, _, _ in together}) > 1
