"""`--model OWNER/NAME` fetches from a hub, here one of our own: two revisions, a token, a cache that works without it."""

import http.server
import json
import os
import pty
import re
import select
import subprocess
import threading
import urllib.parse

import pytest

from conftest import PROGRAM, environment, free_port, until
from independent_llama import store, write_folder

NAME = "acme/tiny"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
EARLIER = "89abcdef0123456789abcdef0123456789abcdef"
TOKEN = "hf_a_token"


class Hub(http.server.ThreadingHTTPServer):
    """The part of the Hugging Face API that a download uses."""

    daemon_threads = True

    def __init__(self, folder, earlier):
        super().__init__(("127.0.0.1", 0), Handler)
        self.revisions = {"main": COMMIT, "v1": EARLIER}
        self.folders = {COMMIT: folder, EARLIER: earlier}
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
        commit = self.server.revisions.get(path.removeprefix(f"/api/models/{NAME}/revision/"))
        if commit:
            files = [{"rfilename": file.name} for file in sorted(self.server.folders[commit].iterdir())]
            return self.answer(200, json.dumps({"sha": commit, "siblings": files}).encode())
        asked = re.fullmatch(f"/{NAME}/resolve/([0-9a-f]+)/([^/]+)", path)
        file = asked and self.server.folders.get(asked[1], self.server.folders[COMMIT]) / asked[2]
        if not file or asked[1] not in self.server.folders or not file.is_file():
            return self.answer(404, b"{}")
        content = file.read_bytes()
        start, _, end = (self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")
        start, end = int(start), min(int(end or len(content) - 1), len(content) - 1)
        headers = {"ETag": f'"{file.name}"', "X-Repo-Commit": asked[1], "Accept-Ranges": "bytes"}
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
    earlier = write_folder(tmp_path / "earlier", "wide-heads")
    store(earlier, "bfloat16", 3)
    hub = Hub(write_folder(tmp_path / "hub", "grouped-query"), earlier)
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


def test_another_revision_in_several_files_is_fetched_by_its_name(tmp_path, start_gateway, hub):
    gateway = start_gateway(arguments=["--model", f"{NAME}@v1"], env=variables(tmp_path, hub.url))
    ask = {"prompt": [5, 6, 7], "max_tokens": 6, "temperature": 0}
    (served,) = [model["id"] for model in gateway.http.get("/v1/models").json()["data"]]
    answer = gateway.complete(model=served, **ask)
    assert sum(path.endswith("-of-00003.safetensors") for path in hub.asked) >= 3
    assert not any(COMMIT in path for path in hub.asked), "nothing of another revision"
    local = start_gateway(arguments=["--model", f"local={tmp_path / 'earlier'}"])
    assert local.complete(model="local", **ask)["text"] == answer["text"]


def test_a_terminal_sees_how_far_a_download_is(tmp_path, hub):
    ours, theirs = pty.openpty()
    (tmp_path / "plugins").mkdir()
    places = ["--listen", f"127.0.0.1:{free_port()}", "--data-dir", tmp_path / "data", "--plugins", tmp_path / "plugins"]
    command = [PROGRAM, "serve", "--model", NAME, *places]
    env = environment(variables(tmp_path, hub.url) | {"TERM": "xterm"})
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=theirs, env=env, cwd=tmp_path)
    os.close(theirs)
    seen = bytearray()

    def bar():
        if select.select([ours], [], [], 0)[0]:
            seen.extend(os.read(ours, 4096))
        return re.search(rb"model\.safetensors[^\n]*\[[^\n]*\]", seen)

    try:
        until(bar, 30, "a bar that has the file's name")
    finally:
        process.kill()
        process.wait()
        os.close(ours)


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
