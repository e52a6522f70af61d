"""Files of the Hugging Face hub, from its cache or over the network, failing in seconds where there is none."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import _CACHED_NO_EXIST, constants, errors
from huggingface_hub.utils.tqdm import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
    tqdm,
)

from clipdeploy.errors import CheckpointError
from clipdeploy.progress import Progress, silent

CONFIG = "open_clip_config.json"
_TIMEOUT_S = 5


class Hub:
    """The hub as one checkpoint's loading sees it.

    Args:
        progress: called while a file is downloaded.
    """

    def __init__(self, progress: Progress = silent) -> None:
        self._progress = progress

    @cached_property
    def unreachable(self) -> str | None:
        """Why the hub cannot be asked, or None; found out with one request instead of the client's six."""
        if constants.HF_HUB_OFFLINE:
            return "HF_HUB_OFFLINE is set"
        try:
            request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
            urllib.request.urlopen(request, timeout=_TIMEOUT_S).close()
        except urllib.error.HTTPError:
            return None  # it answers; what it says of its front page is no matter
        except (OSError, ValueError) as error:
            return f"{constants.ENDPOINT} cannot be reached ({getattr(error, 'reason', error)})"
        return None

    def fetch(self, repo: str, filename: str, *, fix: str, revision: str | None = None) -> Path | None:
        """The local path of a file of `repo`, or None when the repository has no such file.

        Args:
            repo: `ORG/NAME`.
            filename: path inside the repository.
            revision: branch, tag or commit; None is the newest.
            fix: what the user can do when the file cannot be had.

        Raises:
            CheckpointError: the hub cannot be reached and the cache lacks the file, or the hub refuses.
        """
        try:
            path = huggingface_hub.hf_hub_download(
                repo,
                filename,
                revision=revision,
                etag_timeout=_TIMEOUT_S,
                local_files_only=self.unreachable is not None,
                tqdm_class=_meter(self._progress, filename),
            )
        except errors.LocalEntryNotFoundError as error:
            if huggingface_hub.try_to_load_from_cache(repo, filename, revision=revision) is _CACHED_NO_EXIST:
                return None
            reason = self.unreachable or f"the download failed ({error.__cause__ or error})"
            raise CheckpointError(
                f"{filename} of {repo} is not in the Hugging Face cache, and {reason}", fix=fix
            ) from error
        except errors.EntryNotFoundError:
            return None
        except (errors.HfHubHTTPError, errors.HFValidationError, errors.OfflineModeIsEnabled, OSError) as error:
            told = str(error).strip().splitlines() or [type(error).__name__]
            raise CheckpointError(f"{filename} of {repo} cannot be had from the hub: {told[0]}", fix=fix) from error
        return Path(path)

    @contextmanager
    def session(self) -> Iterator[None]:
        """Let other libraries ask the hub in this block: not at all when it cannot be reached, and quietly."""
        offline = constants.HF_HUB_OFFLINE
        quiet = are_progress_bars_disabled()
        if self.unreachable is not None:
            constants.HF_HUB_OFFLINE = True
        disable_progress_bars()
        try:
            yield
        finally:
            constants.HF_HUB_OFFLINE = offline
            if not quiet:
                enable_progress_bars()


def _meter(progress: Progress, what: str) -> Any:
    """A stand-in for tqdm's class that reports to `progress` and draws nothing."""

    class Meter(tqdm):  # type: ignore[misc, type-arg, unused-ignore]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.update(disable=True)
            kwargs.pop("name", None)
            super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call, unused-ignore]
            self._done, self._goal = int(kwargs.get("initial") or 0), int(kwargs.get("total") or 0)

        def update(self, n: float | None = 1) -> bool | None:
            self._done += int(n or 0)
            progress(f"downloading {what}", self._done, self._goal)
            return None

    return Meter
