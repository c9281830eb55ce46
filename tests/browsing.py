"""A real browser, and what an operator does with the page at /ui.

Chromium and its driver come from the system (Debian: chromium chromium-driver). DASHBOARD_SCREENSHOTS names a folder that keeps
what the browser shows.
"""

import os
import shutil
from pathlib import Path

import axe_core_python
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from conftest import until
from test_admin import TOKEN

AXE = (Path(axe_core_python.__file__).parent / "axe.min.js").read_text()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    assert program and driver, "chromium or its driver is missing (Debian: chromium chromium-driver)"
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path_factory.mktemp('chromium')}", "--lang=en-US",
    ):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    browser.set_script_timeout(120)
    yield browser
    browser.quit()


class Page:
    """What an operator does with the page."""

    def __init__(self, browser, admin):
        self.browser, self.admin = browser, admin

    def open(self, path="", width=1280, dark=False, token=TOKEN):
        command = self.browser.execute_cdp_cmd
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        command("Emulation.setDeviceMetricsOverride", size)
        command("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]})
        self.browser.get("about:blank")
        self.browser.get(f"{self.admin.url}/ui/")
        self.browser.execute_script("sessionStorage.clear(); if (arguments[0]) sessionStorage.setItem('tollgate-admin-token', arguments[0])", token)
        self.browser.get("about:blank")
        self.browser.get(f"{self.admin.url}/ui/#/{path}")
        return self

    def all(self, selector):
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector):
        return until(lambda: self.all(selector), 30, f"{selector} on the page")[0]

    def loaded(self):
        self.one("main h1")
        until(lambda: not self.all(".waiting"), 60, "the end of loading")
        return self

    def text(self):
        # At once: what is found first and read later may have been drawn anew in between.
        return self.browser.execute_script("return document.querySelector('main')?.innerText ?? ''")

    def says(self, *words):
        def missing():
            text = self.text()
            return [word for word in words if word not in text]

        until(lambda: not missing(), 30, f"{words} on the page; it says {self.text()[:2000]}")
        return self

    def button(self, label):
        found = [button for button in self.all("button") if button.text.split("\n")[0].strip().startswith(label)]
        assert found, f"no button {label}"
        return found[0]

    def keep(self, name):
        folder = os.environ.get("DASHBOARD_SCREENSHOTS")
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            height = self.browser.execute_script("return document.documentElement.scrollHeight")
            width = self.browser.execute_script("return window.innerWidth")
            size = {"width": width, "height": min(height, 3000), "deviceScaleFactor": 1, "mobile": False}
            self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            self.browser.save_screenshot(str(Path(folder) / f"{name}.png"))
