"""The charts of the operator's page, by what is drawn: pixels of a real browser."""

import pytest
from selenium.webdriver.common.by import By

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
