"""A headless Chromium, by selenium, with a profile of its own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
)


def missing() -> str | None:
    """What is not installed; None where a browser can be driven."""
    try:
        import selenium
    except ImportError:
        return "no selenium: pip install selenium"
    del selenium
    if _chromium() is None or shutil.which("chromedriver") is None:
        return "no Chromium: sudo apt-get install chromium chromium-driver"
    return None


def _chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextmanager
def browser(width: int = 1280, height: int = 900, *, phone: bool = False) -> Iterator[Any]:
    """A window of `width` by `height` px, in light colours; a phone's has two pixels a point, and touch."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(_chromium())
    # The profile is removed when Chromium has ended, which may take a moment longer than the driver's word.
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}"):
            options.add_argument(flag)
        driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
        try:
            metrics = {"width": width, "height": height, "deviceScaleFactor": 2 if phone else 1, "mobile": phone}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
            scheme = {"features": [{"name": "prefers-color-scheme", "value": "light"}]}
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", scheme)
            yield driver
        finally:
            driver.quit()


def skip_without_browser() -> None:
    """Skip the test, with what to install."""
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
