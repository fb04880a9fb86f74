"""The client of `bench api`, a process of its own: `python -m app.measure.benchmarks.api_client ADDRESS MODEL`.

Each line of stdin is a JSON object with `question` and `tokens`; it answers with when the first token came and when the
last, in seconds from the request, and how many there were. Knows nothing of the server beside its address.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def main() -> None:
    """Ask whatever stdin says, until its end."""
    import openai

    address, model = sys.argv[1:]
    client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
    print("{}", flush=True)
    for line in sys.stdin:
        print(json.dumps(ask(client, model, **json.loads(line))), flush=True)


def ask(client: Any, model: str, question: str, tokens: int) -> dict[str, float]:
    """Stream one answer; see the module."""
    first_s = last_s = None
    begun = time.perf_counter()
    stream = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": question}],
        max_tokens=tokens,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    completion_tokens = 0
    for chunk in stream:
        now_s = time.perf_counter() - begun
        if chunk.choices and chunk.choices[0].delta.content:
            first_s, last_s = first_s or now_s, now_s
        if chunk.usage is not None:
            completion_tokens = chunk.usage.completion_tokens
    return {"first_s": first_s or 0.0, "last_s": last_s or 0.0, "tokens": completion_tokens}


if __name__ == "__main__":
    main()
