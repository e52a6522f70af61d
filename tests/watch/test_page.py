"""The page in a real browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.watch.browser import browser, skip_without_browser
from tests.watch.served import served

LABELS = ("red heart", "blue star", "green circle")


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("av")
    from tests.watch.shot import write_film

    return write_film(tmp_path_factory.mktemp("film") / "street.mp4", seed=34, seconds=6, size=(320, 240))


def wait(driver: Any, ready: Callable[[Any], Any], seconds: float = 20) -> Any:
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(driver, seconds, poll_frequency=0.1).until(ready)


def said(driver: Any, script: str) -> Any:
    return driver.execute_script(f"return {script}")


BARS = "[...document.querySelectorAll('#bars li')].map(li => li.children[0].textContent)"
MOVED = "[...document.querySelectorAll('#bars [role=meter]')].map(m => Number(m.getAttribute('aria-valuenow')))"


def test_labels_are_typed_and_answered(demo_bundle: Path, film: Path) -> None:
    skip_without_browser()
    from selenium.webdriver.common.keys import Keys

    with served(demo_bundle, [f"door={film}"], LABELS) as page:
        with browser(1280, 900) as driver:
            driver.get(page.url)
            wait(driver, lambda d: said(d, "document.getElementById('picture').naturalWidth") == 320)
            wait(driver, lambda d: said(d, BARS) == list(LABELS))
            first = said(driver, MOVED)
            wait(driver, lambda d: said(d, MOVED) != first)
            wait(driver, lambda d: said(d, "document.querySelectorAll('#events .appeared').length") > 0)
            assert "door" in driver.title

            box = driver.find_element("id", "labels")
            box.send_keys(Keys.CONTROL, "a", Keys.NULL, "yellow flower\nblue star", Keys.CONTROL, Keys.ENTER)
            wait(driver, lambda d: said(d, BARS) == ["yellow flower", "blue star"])
            wait(driver, lambda d: "yellow flower" in d.find_element("id", "said").text)
            assert "Watching for 2 labels" in driver.find_element("id", "message").text

            box.send_keys(Keys.CONTROL, "a", Keys.NULL, "cat, cat")
            driver.find_element("css selector", "form button").click()
            wait(driver, lambda d: "cat" in d.find_element("id", "message").text)
            assert said(driver, BARS) == ["yellow flower", "blue star"]
            complaints = [entry["message"] for entry in driver.get_log("browser")]
            assert [message for message in complaints if "422" not in message] == []  # that was the label given twice

        with browser(390, 844, phone=True) as driver:
            driver.get(page.url)
            wait(driver, lambda d: said(d, "document.getElementById('picture').naturalWidth") == 320)
            wait(driver, lambda d: said(d, BARS) == ["yellow flower", "blue star"])
            assert said(driver, "document.documentElement.scrollWidth") == 390
            buttons = said(
                driver, "[...document.querySelectorAll('button')].map(b => b.getBoundingClientRect().height)"
            )
            assert min(height for height in buttons if height) >= 36


def test_two_cameras_and_a_token(demo_bundle: Path, film: Path) -> None:
    skip_without_browser()
    with served(demo_bundle, [f"door={film}", f"yard={film}"], LABELS, "--token", "open-sesame") as page:
        assert page.url.endswith("/?token=open-sesame")
        with browser(900, 700) as driver:
            driver.get(page.url.partition("?")[0])
            field = driver.find_element("id", "token")
            field.send_keys("open-sesame")
            field.submit()
            wait(driver, lambda d: said(d, "document.getElementById('picture').naturalWidth") == 320)
            assert "sesame" not in driver.current_url
            tabs = driver.find_elements("css selector", "#cameras button")
            assert [tab.text for tab in tabs] == ["door", "yard"]
            tabs[1].click()
            wait(driver, lambda d: said(d, "document.getElementById('picture').src").find("camera=1") > 0)
            wait(driver, lambda d: said(d, "document.getElementById('picture').className") == "there")
            assert tabs[1].get_attribute("aria-pressed") == "true"
