"""The operator's page at /ui and the API that it reads: the real program under load, looked at with a real browser."""

import json
import re
import threading
from decimal import Decimal

import httpx
import pytest
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from backends import Scripted, begin_events
from browsing import AXE, Page, browser  # noqa: F401 - a fixture
from conftest import Gateway, free_port, replace_file, until
from test_admin import OTHER_BUILD, TOKEN, Admin
from test_tenants import key_command

PAGES = ("requests", "spending", "plugins", "limits", "backends", "health")
SHADOW = '[[plugin]]\nfile = "cost-device-seconds.wasm"\nshadow = true\n'
BACKENDS = """
[[backend]]
name = "away"
url = "http://127.0.0.1:9/v1"
provider = "other"
models = ["far-model"]

[[backend]]
name = "slow"
url = "URL/v1"
provider = "other"
models = ["slow-model"]
"""
LIMITS = """
[[tenant]]
name = "acme"
[tenant.limits]
requests-per-minute = 600
concurrent = 8
[[tenant.budget]]
amount = "12.50"
currency = "USD"
per = "day"
"""


@pytest.fixture(scope="module")
def busy(tmp_path_factory):
    """A gateway with keys, budgets, a backend that is away, one that is slow and a shadow plugin, that has served and goes on
    serving, so that each page is seen while requests come and one is in flight."""
    folder = tmp_path_factory.mktemp("dashboard")
    keys = folder / "keys.toml"
    secrets = {}
    for tenant in ("acme", "globex"):
        told = key_command("create", "--keys-file", keys, "--tenant", tenant, "--note", f"{tenant}'s")
        secrets[tenant] = re.search(r"tg-[A-Za-z0-9_-]+", told)[0]
    replace_file(keys, keys.read_text() + LIMITS)
    stop = threading.Event()

    def slowly(connection, _):
        begin_events(connection)
        event = {"id": "cmpl-x", "object": "text_completion", "created": 1, "model": "slow-model", "choices": [{"index": 0, "text": "word "}]}
        for _ in range(100):
            connection.sendall(b"data: %s\n\n" % json.dumps(event).encode())
            if stop.wait(0.2):
                break
        connection.sendall(b"data: [DONE]\n\n")

    slow = Scripted(slowly)
    replace_file(folder / "backends.toml", BACKENDS.replace("URL", slow.url))
    port = free_port()
    gateway = Gateway(
        folder, plugins_toml=SHADOW, env={"TOLLGATE_ADMIN_TOKEN": TOKEN},
        arguments=["--admin-listen", f"127.0.0.1:{port}", "--keys-file", keys, "--backends", folder / "backends.toml", "--model", "demo"],
    )  # fmt: skip

    def ask(tenant, model, **more):
        body = {"model": model, "prompt": "What is a span?", "max_tokens": 12, "temperature": 0, **more}
        headers = {"authorization": f"Bearer {secrets[tenant]}"}
        return httpx.post(f"{gateway.url}/v1/completions", json=body, headers=headers, timeout=60, trust_env=False)

    def go_on(pause, model, **more):
        while not stop.wait(pause):
            ask("acme", model, **more)

    try:
        gateway.wait_until_ready()
        admin = Admin(gateway, port)
        for round in range(12):
            assert ask("acme", "mistral-7b").status_code == 200
            assert ask("globex", "gpt-4o-mini", stream=round % 2 == 0).status_code == 200
        assert ask("globex", "far-model").status_code >= 500
        assert ask("globex", "no-such-model").status_code == 404
        # A second build, so that there is a first to go back to.
        replace_file(gateway.plugins / "cost-per-token.wasm", OTHER_BUILD)
        admin.post("/admin/plugins/reload")
        loads = [threading.Thread(target=go_on, args=asked, kwargs=more, daemon=True) for asked, more in (
            ((0.2, "mistral-7b"), {}), ((0.4, "mistral-7b"), {"stream": True, "max_tokens": 40}), ((0, "slow-model"), {"stream": True}),
        )]  # fmt: skip
        for load in loads:
            load.start()
        yield admin
        stop.set()
        for load in loads:
            load.join(60)
        gateway.stop()
    finally:
        stop.set()
        gateway.kill()
        slow.close()


# The API.


def test_records_are_listed_filtered_and_paged(busy):
    newest = busy.get("/admin/requests?limit=5")
    numbers = [request["number"] for request in newest["requests"]]
    assert numbers == sorted(numbers, reverse=True) and len(numbers) == 5 and newest["next"] == numbers[-1]
    before = busy.get(f"/admin/requests?limit=5&before={newest['next']}")["requests"]
    assert [request["number"] for request in before] == list(range(numbers[-1] - 1, numbers[-1] - 6, -1))
    every, at = [], ""
    while at is not None:
        page = busy.get(f"/admin/requests?tenant=globex&limit=7{at and f'&before={at}'}")
        every += page["requests"]
        at = page["next"]
    assert len(every) == 14 and {request["tenant"] for request in every} == {"globex"}
    assert len({request["number"] for request in every}) == 14
    priced = [request for request in every if request["cost"]["status"] == "priced"]
    assert len(priced) == 12 and all(Decimal(request["cost"]["amount"]) > 0 for request in priced)
    for query, wanted in (
        ("model=far-model", 1), ("outcome=refused&tenant=globex", 1), ("outcome=completed&tenant=globex", 12),
        ("status=unpriced&tenant=globex", 2), (f"id={every[0]['id']}", 1), (f"id={every[0]['trace_id']}", 1),
        ("until=2020-01-01", 0), ("since=1d&tenant=globex", 14), ("tenant=nobody-at-all", 0),
    ):  # fmt: skip
        found = busy.get(f"/admin/requests?{query}&limit=200")
        assert len(found["requests"]) == wanted and found["next"] is None, query


def test_one_request_is_the_trace_that_exporters_get(busy):
    request = busy.get("/admin/requests?tenant=globex&outcome=completed&limit=1")["requests"][0]
    seen = busy.get(f"/admin/requests/{request['number']}")
    root = seen["spans"][0]
    assert root["name"] == "inference.request" and root["trace_id"] == request["trace_id"]
    assert {span["parent_span_id"] for span in seen["spans"][1:]} == {root["span_id"]}
    assert {"inference.prefill", "inference.decode"} <= {span["name"] for span in seen["spans"]}
    assert [event["name"] for event in root["events"]]
    assert seen["cost"]["plugin"]["digest"] == root["attributes"]["tollgate.cost.plugin.digest"], root["attributes"]
    assert sum(Decimal(line["amount"]) for line in seen["cost"]["lines"]) == Decimal(seen["cost"]["amount"])
    exporter = busy.get("/admin/exporters")["exporters"][0]["name"]
    leaves = busy.http.get(f"/admin/requests/{request['number']}?exporter={exporter}").json()
    assert leaves["bound_for"] == exporter
    in_file = until(lambda: busy.gateway.spans(request["trace_id"]), what="its spans in the file")
    by_id = lambda spans: {span["span_id"]: span for span in spans}  # noqa: E731
    assert by_id(leaves["spans"]) == by_id(in_file)


def test_totals_are_those_of_the_records(busy):
    every = busy.get("/admin/requests?tenant=globex&limit=200")["requests"]
    total = busy.get("/admin/totals?tenant=globex&by=model&since=1d")
    assert total["cut_off"] is None and total["records"] == total["total"]["requests"] == len(every)
    for group in total["groups"]:
        mine = [request for request in every if request["model"] == group["model"]]
        amounts = [Decimal(request["cost"]["amount"]) for request in mine if request["cost"]["amount"]]
        assert [Decimal(sum["amount"]) for sum in group["amounts"]] == ([sum(amounts)] if amounts else [])
        assert group["tokens"]["output"] == sum((request["tokens"] or {}).get("output", 0) for request in mine)
    buckets = busy.get("/admin/totals?tenant=globex&by=time&bucket=1m&since=1d")
    assert sum(group["requests"] for group in buckets["groups"]) == len(every) and buckets["bucket_seconds"] == 60


def test_what_is_under_way_is_seen(busy):
    assert until(lambda: busy.get("/admin/requests/in-flight")["requests"], 60, "a request in flight")[0]["tenant"] == "acme"


def test_limits_ledger_and_exporters_are_told(busy):
    def with_use():
        """What is used is given back, ten requests a second."""
        limits = busy.get("/admin/limits")
        return limits if limits["tenants"][0]["used"]["requests"] > 0 else None

    limits = until(with_use, 60, "a request that counts")
    acme = limits["tenants"][0]
    assert acme["name"] == "acme" and acme["limits"]["requests_per_minute"] == 600
    budget = acme["budgets"][0]
    assert (budget["amount"], budget["per"]) == ("12.5", "day") and Decimal(budget["spent"]) > 0
    assert {key["tenant"] for key in limits["keys"]} == {"acme", "globex"} and limits["open"] is False
    assert TOKEN not in str(limits) and "sha256" not in str(limits)
    ledger = busy.get("/admin/ledger")
    assert ledger["durability"] == "power" and ledger["records"] >= 26 and ledger["unavailable"] is None
    for exporter in busy.get("/admin/exporters")["exporters"]:
        parts = ("delivered", "filtered", "rejected", "pending")
        assert sum(exporter[part] for part in parts) == exporter["records"]


@pytest.mark.parametrize(
    "path, parameter",
    [
        ("requests?tenent=a", "tenent"), ("requests?limit=0", "limit"), ("requests?limit=1000", "limit"), ("requests?before=x", "before"),
        ("requests?outcome=fine", "outcome"), ("requests?status=fine", "status"), ("requests?since=yesterday", "since"),
        ("requests?since=1h&until=2h", "until"), ("requests/seven", "number"), ("totals?by=colour", "by"), ("totals?bucket=1", "bucket"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_question_is_named(busy, path, parameter):
    error = busy.get(f"/admin/{path}", 400)["error"]
    assert error["param"] == parameter and len(error["message"]) > 20


def test_nothing_is_told_without_the_token(busy):
    for path in ("requests", "requests/1", "requests/in-flight", "totals", "limits", "ledger", "exporters"):
        assert httpx.get(f"{busy.url}/admin/{path}", trust_env=False).status_code == 401
    assert busy.get("/admin/requests/999999999", 404)["error"]["code"] == "not_found"
    assert busy.get("/admin/requests/1?exporter=none", 404)["error"]["param"] == "exporter"


# The page.


@pytest.fixture
def page(browser, busy):  # noqa: F811 - the fixture
    return Page(browser, busy)


def test_the_real_page_is_in_the_binary(busy):
    moved = httpx.get(f"{busy.url}/ui", trust_env=False)
    assert moved.status_code == 308 and moved.headers["location"] == "ui/"
    answer = httpx.get(f"{busy.url}/ui/", trust_env=False)
    assert "not in this program" not in answer.text, "the build had no npm: its warnings say why"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and answer.headers["cache-control"] == "no-cache"
    files = re.findall(r'(?:src|href)="(app-[A-Z0-9]+\.(?:js|css))"', answer.text)
    assert len(files) == 2 and "<style" not in answer.text and not re.search(r"<script(?! type=\"module\" src)", answer.text)
    for file in files:
        found = httpx.get(f"{busy.url}/ui/{file}", trust_env=False)
        assert found.status_code == 200 and "immutable" in found.headers["cache-control"]
        again = httpx.get(f"{busy.url}/ui/{file}", headers={"if-none-match": found.headers["etag"]}, trust_env=False)
        assert again.status_code == 304 and not again.content
        assert "http://" not in re.sub(r"http://www\.w3\.org/[\w/]*", "", found.text), "nothing is loaded from elsewhere"
    assert httpx.get(f"{busy.url}/ui/nothing.js", trust_env=False).status_code == 404


def test_the_token_is_asked_for_and_stays_out_of_the_address(page):
    page.open(token=None)
    field = page.one("input[type=password]")
    field.send_keys("not the token", Keys.ENTER)
    until(lambda: "not the token of the admin API" in page.text(), 30, "the refusal")
    page.keep("token-wrong")
    field = page.one("input[type=password]")
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys(TOKEN, Keys.ENTER)
    page.says("On record")
    assert TOKEN not in page.browser.current_url
    page.button("Sign out").click()
    page.one("input[type=password]")
    assert page.browser.execute_script("return sessionStorage.length + localStorage.length") == 0


def test_requests_are_shown_and_filtered(page):
    page.open("requests").loaded().says("On record", "In flight", "acme")
    field = page.one("input[type=search]")
    field.send_keys("globex", Keys.ENTER)
    numbers = {str(request["number"]) for request in page.admin.get("/admin/requests?tenant=globex&limit=50")["requests"]}

    def shown():
        return set(page.browser.execute_script("return [...document.querySelectorAll('tbody th a')].map(link => link.innerText)"))

    until(lambda: shown() == numbers, 30, "the requests of globex only")
    assert "tenant=globex" in page.browser.current_url
    Select(page.all(".filters select")[0]).select_by_visible_text("refused")
    until(lambda: len(shown()) == 1, 30, "the refused one")
    Select(page.all(".filters select")[0]).select_by_visible_text("aborted")
    page.says("No request matches.")
    page.button("Clear filters").click()
    page.says("acme")
    page.open("requests?tenant=globex").loaded()
    until(lambda: shown() == numbers, 30, "the filter that the address names")


def test_what_is_in_flight_is_shown_while_it_is(page):
    page.open("requests").loaded().says("In flight", "being served", "slow-model")

    def so_far():
        script = "return [...document.querySelectorAll('tbody tr')].filter(row => row.innerText.includes('slow-model')).map(row => row.querySelector('[data-name=\"Out so far\"]')?.innerText).find(Boolean)"
        return int(page.browser.execute_script(script) or 0)

    looks = [0]

    def grows():
        """From one look to the next: the request that the first look was at may have ended by now, and the one after it begun anew."""
        looks.append(so_far())
        return 0 < looks[-2] < looks[-1]

    until(grows, 60, "a number of tokens that grows while it is looked at")


def test_older_requests_are_a_page_away(page):
    until(lambda: page.admin.get("/admin/ledger")["records"] > 60, 120, "more than a page of requests")
    page.open("requests").loaded()
    link = next(link for link in page.all(".pages a") if link.text == "Older requests")
    before = int(re.search(r"before=(\d+)", link.get_attribute("href"))[1])
    link.click()
    until(lambda: f"before={before}" in page.browser.current_url, 10, "the next page")
    top = "return document.querySelector('tbody th a')?.innerText"
    until(lambda: page.browser.execute_script(top) == str(before - 1), 30, "older requests")


def test_a_request_is_a_waterfall(page):
    request = page.admin.get("/admin/requests?tenant=globex&outcome=completed&limit=1")["requests"][0]
    whole = page.admin.get(f"/admin/requests/{request['number']}")
    page.open(f"requests/{request['number']}").loaded()
    page.says(request["id"], request["trace_id"], whole["cost"]["plugin"]["digest"], f"Total {whole['cost']['amount']} USD")
    names = [element.text for element in page.all(".span-name")]
    assert sorted(names) == sorted(span["name"] for span in whole["spans"])
    root = page.one(".span-body")
    for key, value in whole["spans"][0]["attributes"].items():
        assert key in root.text and (not isinstance(value, str) or value in root.text), key
    assert whole["spans"][0]["events"][0]["name"] in root.text
    Select(page.one(".panel-head select")).select_by_index(1)
    until(lambda: page.all(".span-name") and not page.all(".waiting"), 30, "the spans that leave")
    page.open("requests/999999999").says("There is no record 999999999", "Try again")


def test_sums_and_charts_are_those_of_the_api(page):
    page.open("spending?period=1d&tenant=globex").loaded()
    total = page.admin.get("/admin/totals?by=tenant,model&since=1d&tenant=globex")["total"]
    page.says(f"{total['tokens']['input']} in" if total["tokens"]["input"] < 1000 else "Tokens", "gpt-4o-mini", "far-model")
    assert len(page.all(".chart canvas")) == 4
    page.one(".chart summary").click()
    figures = page.one(".chart details[open]").text
    assert total["amounts"][0]["amount"] in figures, "the sum of its only bucket, exact, as a table"
    Select(page.all(".filters select")[1]).select_by_visible_text("model")
    page.says("By model")


def test_plugins_are_shown_and_rolled_back(page):
    page.open("plugins").loaded()
    plugins = page.admin.get("/admin/plugins")["plugins"]
    page.says(*(plugin["plugin"]["name"] for plugin in plugins), *(plugin["plugin"]["digest"][:12] for plugin in plugins))
    page.says("Shadow prices", "tollgate/cost-device-seconds", "gpt-4o-mini")
    before = page.admin.plugin("cost-per-token.wasm")
    page.keep("plugins-light")
    ask = next(b for b in page.all("button") if b.get_attribute("textContent") == "Roll back cost-per-token.wasm")
    ask.click()
    page.one("dialog[open]")
    page.keep("plugins-confirm")
    page.button("Cancel").click()
    until(lambda: not page.all("dialog"), 10, "the dialog's end")
    assert page.admin.plugin("cost-per-token.wasm")["plugin"] == before["plugin"], "nothing was done"
    next(b for b in page.all("button") if b.get_attribute("textContent") == "Roll back cost-per-token.wasm").click()
    next(b for b in page.all("dialog button") if b.text == "Roll back").click()
    page.says("Done: rollback cost-per-token.wasm", "held")
    assert page.admin.plugin("cost-per-token.wasm")["plugin"]["digest"] == before["previous"]["digest"]
    next(b for b in page.all("button") if b.get_attribute("textContent") == "Enable cost-per-token.wasm").click()
    next(b for b in page.all("dialog button") if b.text == "Enable").click()
    until(lambda: page.admin.plugin("cost-per-token.wasm")["state"] == "serving", 30, "the content of the file again")


def test_a_dialog_is_answered_by_keyboard(page):
    focused = "return [document.activeElement.closest('dialog') !== null, document.activeElement.textContent]"
    page.open("plugins").loaded()
    for leave in (Keys.ESCAPE, Keys.ENTER):  # Enter: on Cancel, which has the focus
        button = next(b for b in page.all("button") if b.get_attribute("textContent") == "Disable enrich-labels.wasm")
        page.browser.execute_script("arguments[0].focus()", button)
        button.send_keys(Keys.ENTER)
        until(lambda: page.browser.execute_script(focused) == [True, "Cancel"], 10, "the focus on Cancel")
        page.browser.switch_to.active_element.send_keys(leave)
        until(lambda: not page.all("dialog"), 10, "the dialog's end")
        until(lambda: page.browser.execute_script(focused) == [False, "Disable enrich-labels.wasm"], 10, "the focus where it was")


def test_limits_backends_and_health_are_shown(page):
    page.open("limits").loaded().says("acme", "globex", "of 600", "of 12.5 USD a day", "acme's")
    page.open("backends").loaded().says("away", "http://127.0.0.1:9/v1")
    exporters = page.admin.get("/admin/exporters")["exporters"]
    page.open("health").loaded().says("survives a power cut", *(exporter["name"] for exporter in exporters), "delivering")
    page.open("nowhere").says("No such page")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 375])
def test_every_page_is_accessible_and_fits(page, width, dark):
    number = page.admin.get("/admin/requests?tenant=globex&outcome=completed&limit=1")["requests"][0]["number"]
    for path in (*PAGES, f"requests/{number}"):
        page.open(path, width, dark).loaded()
        overflow = page.browser.execute_script("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert overflow <= 0, f"{path} scrolls sideways by {overflow} px"
        # Axe is code that the page's own policy would refuse, so it comes in through the driver.
        page.browser.execute_cdp_cmd("Runtime.evaluate", {"expression": AXE})
        found = page.browser.execute_async_script("const done = arguments[0]; axe.run().then(done, error => done({violations: [{id: String(error), nodes: []}]}))")
        broken = [(rule["id"], [node["html"][:160] for node in rule["nodes"]][:3]) for rule in found["violations"]]
        page.keep(f"{path.split('/')[0]}{'-one' if '/' in path else ''}-{width}-{'dark' if dark else 'light'}")
        assert not broken, (path, broken)
        # What is folded away has no layout that could be measured.
        page.browser.execute_script("for (const folded of document.querySelectorAll('details')) folded.open = true")
        # The longest time there can be, in every row: what is on record while this runs is a matter of luck.
        page.browser.execute_script("for (const cell of document.querySelectorAll('td.number')) if (/^[\\d.]+ (ms|s|µs)$/.test(cell.textContent)) cell.textContent = '23 h 59 min'")
        clipped = "return [...document.querySelectorAll('tbody td, tbody th')].filter(cell => cell.scrollWidth > cell.clientWidth + 1).map(cell => cell.textContent)"
        assert page.browser.execute_script(clipped) == [], f"{path} cuts off what stands in its tables"


def test_the_keyboard_reaches_everything(page):
    page.open("plugins").loaded()
    wanted = page.browser.execute_script(
        "const all = [...document.querySelectorAll('a[href], button:not(:disabled), select, input, summary, .scroll')];"
        "all.forEach((element, place) => element.dataset.place = place); return all.length"
    )
    body, reached = page.browser.switch_to.active_element, set()
    page.browser.execute_script("document.activeElement.blur()")
    for _ in range(wanted + 5):
        body = page.browser.switch_to.active_element
        body.send_keys(Keys.TAB)
        at = page.browser.execute_script("return document.activeElement.dataset.place ?? null")
        if at is not None:
            reached.add(int(at))
    # The list is loaded again now and then, and new elements have no number: ask for most, and for the first and last.
    assert reached == set(range(wanted)), sorted(set(range(wanted)) - reached)


def test_a_screen_reader_is_told_what_is_where(page):
    for path in PAGES:
        page.open(path).loaded()
        tree = page.browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
        told = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in tree if not node["ignored"]]
        names = {kind: [name for role, name in told if role == kind] for kind in ("main", "navigation", "heading", "button", "image", "table", "link")}
        assert len(names["main"]) == 1 and names["navigation"][0] == "Pages", (path, names)
        assert names["heading"][0] == page.one("main h1").text and all(names["heading"]), (path, names)
        for kind in ("button", "image", "table", "link"):
            assert all(names[kind]), f"{path}: a {kind} without a name"
        assert len(set(names["button"])) == len(names["button"]), f"{path}: buttons that sound the same: {names['button']}"
        at = page.browser.execute_script("return [...document.querySelectorAll('[aria-current=page]')].map(link => link.getAttribute('href'))")
        assert at == [f"#/{path}"], path


def test_no_page_says_anything_in_the_console(page):
    page.browser.get_log("browser")
    for path in PAGES:
        page.open(path).loaded()
    assert [entry["message"] for entry in page.browser.get_log("browser") if entry["level"] != "INFO"] == []
