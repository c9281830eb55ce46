"""`--model OWNER/NAME` fetches from a hub, here one of our own: one commit, a token, a cache that works without it."""

import http.server
import json
import threading
import urllib.parse

import pytest

from conftest import free_port, until
from independent_llama import write_folder

NAME = "acme/tiny"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_a_token"


class Hub(http.server.ThreadingHTTPServer):
    """The part of the Hugging Face API that a download uses."""

    daemon_threads = True

    def __init__(self, folder):
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.asked = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = urllib.parse.unquote(self.path)
        self.server.asked.append(path)
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer(401, b"{}")
        if path == f"/api/models/{NAME}/revision/main":
            files = [{"rfilename": file.name} for file in sorted(self.server.folder.iterdir())]
            return self.answer(200, json.dumps({"sha": COMMIT, "siblings": files}).encode())
        file = self.server.folder / path.removeprefix(f"/{NAME}/resolve/{COMMIT}/")
        if not file.is_file():
            return self.answer(404, b"{}")
        content = file.read_bytes()
        start, _, end = (self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")
        start, end = int(start), min(int(end or len(content) - 1), len(content) - 1)
        headers = {"ETag": f'"{file.name}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
        self.answer(206, content[start : end + 1], headers)

    def answer(self, status, body, headers=()):
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(tmp_path):
    hub = Hub(write_folder(tmp_path / "hub", "grouped-query"))
    yield hub
    hub.shutdown()
    hub.server_close()


def variables(tmp_path, url, **more):
    return {"HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "cache"), "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "", **more}


def test_a_model_is_fetched_once_and_served_from_the_cache_after(tmp_path, start_gateway, hub):
    def served(env):
        gateway = start_gateway(arguments=["--model", NAME], env=env)
        assert [model["id"] for model in gateway.http.get("/v1/models").json()["data"]] == [NAME]
        answer = gateway.complete(model=NAME, prompt=[5, 6, 7], max_tokens=6, temperature=0)
        gateway.stop()
        return answer["text"]

    first = served(variables(tmp_path, hub.url))
    assert any(path.endswith("/model.safetensors") for path in hub.asked)
    hub.asked.clear()
    assert served(variables(tmp_path, hub.url)) == first
    assert hub.asked == [f"/api/models/{NAME}/revision/main"], "what is in the cache is not fetched again"
    gone = f"http://127.0.0.1:{free_port()}"
    assert served(variables(tmp_path, gone)) == first
    assert served(variables(tmp_path, gone, HF_HUB_OFFLINE="1")) == first


@pytest.mark.parametrize(
    "more, mention",
    [({"HF_TOKEN": "wrong"}, "401"), ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE")],
    ids=["refused", "offline"],
)
def test_a_model_that_cannot_be_had_is_named(tmp_path, start_gateway, hub, more, mention):
    env = variables(tmp_path, hub.url) | more
    gateway = start_gateway(ready=False, arguments=["--model", NAME], env=env)
    assert until(lambda: gateway.process.poll() is not None, 20, "the end of the program")
    assert gateway.process.returncode == 1
    assert NAME in gateway.log() and mention in gateway.log()
