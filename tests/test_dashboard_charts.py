"""The charts of the operator's page, by what is drawn: pixels of a real browser."""

import re
from decimal import Decimal

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select

from conftest import until
from test_dashboard import browser, busy, page  # noqa: F401 - fixtures

# Of a chart: which buckets have a value, by the table below it, and which columns of pixels have the colour of a line.
DRAWN = """
const chart = arguments[0], canvas = chart.querySelector("canvas"), plot = chart.querySelector(".u-over");
const probe = document.body.appendChild(document.createElement("i"));
const colours = ["--a", "--b"].map((name) => {
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color.match(/\\d+/g).map(Number);
});
probe.remove();
const values = [...chart.querySelectorAll("tbody tr")].reverse().map((row) => [...row.querySelectorAll("td")].some((cell) => cell.textContent !== "–"));
const [outer, inner] = [canvas.getBoundingClientRect(), plot.getBoundingClientRect()];
const scale = canvas.width / outer.width;
const box = [inner.left - outer.left, inner.top - outer.top, inner.width, inner.height].map((length) => Math.round(length * scale));
const { data, width, height } = canvas.getContext("2d").getImageData(...box);
const columns = [];
for (let x = 0; x < width; x++) {
  columns.push([...Array(height).keys()].some((y) => {
    const at = (y * width + x) * 4;
    return colours.some((colour) => colour.every((part, place) => Math.abs(part - data[at + place]) < 8) && data[at + 3] > 240);
  }));
}
return { values, columns };
"""


@pytest.mark.parametrize("width", [1280, 375])
def test_a_bucket_between_two_without_requests_is_seen(page, width):  # noqa: F811 - the fixture
    """All of globex's requests came in a minute or two; by the browser's clock, ten minutes before those of others."""
    command, ahead = page.browser.execute_cdp_cmd, "const now = Date.now; Date.now = () => now() + 600000;"
    script = command("Page.addScriptToEvaluateOnNewDocument", {"source": ahead})["identifier"]
    try:
        page.open("spending?period=1h&tenant=globex", width).loaded()
    finally:
        command("Page.removeScriptToEvaluateOnNewDocument", {"identifier": script})
    chart = next(chart for chart in page.all(".chart") if "Duration" in chart.find_element(By.CSS_SELECTOR, ".plot").get_attribute("aria-label"))
    drawn = page.browser.execute_script(DRAWN, chart)
    values, columns = drawn["values"], drawn["columns"]
    assert len(values) >= 60 and 1 <= sum(values) < 10 and not any(values[-3:]) and not values[0], values
    page.keep(f"isolated-{width}")
    step = len(columns) / len(values)
    for place, has_value in enumerate(values):
        mine = columns[round(place * step) + 1 : round((place + 1) * step) - 1]
        assert all(mine) if has_value else not any(mine), (place, has_value, values, columns)


def test_charts_are_narrowed_to_a_tenant_and_a_model(page):  # noqa: F811 - the fixture
    page.open("spending?period=1d").loaded().says("acme", "globex", "mistral-7b", "gpt-4o-mini")
    selects = lambda: {s.accessible_name: Select(s) for s in page.all(".filters select")}  # noqa: E731
    assert list(selects()) == ["Period", "Group by", "Tenant", "Model"]
    names = lambda label: [option.text for option in selects()[label].options]  # noqa: E731
    until(lambda: names("Tenant") == ["all", "acme", "globex"], 30, "the tenants to choose from")
    assert {"all", "mistral-7b", "gpt-4o-mini", "far-model"} <= set(names("Model"))
    cells = "return [...document.querySelectorAll('.wide tbody tr')].map(row => [...row.children].slice(0, 3).map(cell => cell.innerText))"
    rows = lambda: page.browser.execute_script(cells)  # noqa: E731
    selects()["Tenant"].select_by_visible_text("globex")
    until(lambda: rows() and {row[0] for row in rows()} == {"globex"}, 30, "globex only")
    selects()["Model"].select_by_visible_text("gpt-4o-mini")
    until(lambda: rows() == [["globex", "gpt-4o-mini", "12"]], 30, "one model of globex only")
    assert "tenant=globex" in page.browser.current_url and "model=gpt-4o-mini" in page.browser.current_url
    total = page.admin.get("/admin/totals?since=1d&tenant=globex&model=gpt-4o-mini")["total"]
    figures = next(f for f in page.all(".chart details") if "Cost" in f.find_element(By.TAG_NAME, "caption").get_attribute("textContent"))
    amounts = re.findall(r"([\d.]+) USD", figures.get_attribute("textContent"))
    assert sum(Decimal(amount) for amount in amounts) == Decimal(total["amounts"][0]["amount"]), "the charts are narrowed, too"
    # An address that names what had no requests is told so, and keeps it as the choice.
    page.open("spending?period=1d&tenant=globex&model=mistral-7b").loaded().says("No request matches.")
    assert selects()["Model"].first_selected_option.text == "mistral-7b"
    page.button("Clear filters").click()
    page.says("acme")
    assert "tenant=" not in page.browser.current_url
