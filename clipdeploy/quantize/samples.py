"""What calibrates and measures each encoder: pictures of the user's, texts of the bundle's and the user's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clipdeploy.bundle import Bundle
from clipdeploy.calibration.accuracy import Floats
from clipdeploy.calibration.samples import ADVISED, MINIMUM, Samples, open_samples
from clipdeploy.calibration.split import MEASURED, Feed
from clipdeploy.calibration.tower import TowerSamples
from clipdeploy.errors import CalibrationError
from clipdeploy.progress import Progress
from clipdeploy.runtime.labels import DEFAULT_TEMPLATE, check_labels, fill_templates, resolve_templates
from clipdeploy.spec import Tower

if TYPE_CHECKING:
    from clipdeploy.quantize.job import QuantizeRequest
    from clipdeploy.runtime.clip import Clip
    from clipdeploy.verify.golden import Golden

_BATCH = 8


@dataclass(frozen=True)
class _Ids:
    """Token ids, batch by batch."""

    name: str
    ids: NDArray[np.integer[Any]]

    def __iter__(self) -> Iterator[Feed]:
        return ({self.name: self.ids[i : i + _BATCH]} for i in range(0, len(self.ids), _BATCH))


def prepare(request: QuantizeRequest, bundle: Bundle, progress: Progress) -> dict[Tower, TowerSamples]:
    """The samples of the encoders asked for.

    Raises:
        InputError, CalibrationError: the data is missing or unfit.
    """
    from clipdeploy.runtime.backends import ONNXRUNTIME
    from clipdeploy.runtime.clip import load
    from clipdeploy.verify.golden import read_golden

    golden = read_golden(bundle)
    with load(bundle, backend=ONNXRUNTIME, threads=request.threads, check_hashes=False, self_test=False) as clip:
        pictures = open_samples(request.data, clip.images, limit=request.samples, seed=request.seed, progress=progress)
        prepared = {}
        if Tower.IMAGE in request.towers:
            prepared[Tower.IMAGE] = _of_pictures(request, clip, pictures, golden)
        if Tower.TEXT in request.towers:
            prepared[Tower.TEXT] = _of_texts(request, clip, pictures, golden)
    return prepared


def _of_pictures(request: QuantizeRequest, clip: Clip, pictures: Samples, golden: Golden) -> TowerSamples:
    bank, name = golden.text_embeds, f"the bundle's {len(golden.texts)} golden texts"
    if request.labels:
        bank = clip.encode_labels(request.labels, _templates(request))
        name = f"{len(request.labels)} labels"
    spec = clip.spec.image
    return TowerSamples(
        batches=pictures.feeds(spec.input.name),
        count=pictures.count,
        sha256=pictures.sha256,
        coverage=pictures.coverage,
        notes=pictures.notes,
        bank=bank,
        bank_name=name,
        golden=golden.pixels,
        input=spec.input,
        pixels=clip.spec.pixels,
    )


def _of_texts(request: QuantizeRequest, clip: Clip, pictures: Samples, golden: Golden) -> TowerSamples:
    """Texts of the bundle and the user, to be matched with the calibration pictures."""
    filled = fill_templates(check_labels(request.labels), _templates(request)) if request.labels else ()
    texts = list(dict.fromkeys((*golden.texts, *request.texts, *filled)))
    if len(texts) < MINIMUM:
        raise CalibrationError(f"{len(texts)} texts for calibration; at least {MINIMUM} are needed", fix="pass --texts")
    spec = clip.spec.text
    ids = clip.tokenizer(texts).astype(spec.input.dtype, copy=False)
    few = f"{len(texts)} texts: fewer than {ADVISED} may miss rare values; --texts FILE adds some"
    return TowerSamples(
        batches=_Ids(spec.input.name, ids),
        count=len(texts),
        sha256=hashlib.sha256(np.ascontiguousarray(ids).tobytes()).hexdigest(),
        coverage={"count": len(texts), "golden": len(golden.texts), "given": len(request.texts), "labels": len(filled)},
        notes=(few,) if len(texts) < ADVISED else (),
        bank=_embedded(clip, pictures),
        bank_name=f"{min(pictures.count, MEASURED)} calibration pictures",
        golden=golden.input_ids.astype(spec.input.dtype, copy=False),
        input=spec.input,
        pixels=None,
    )


def _embedded(clip: Clip, pictures: Samples) -> Floats:
    """(K, D) of the first pictures."""
    rows: list[Floats] = []
    for batch in pictures.batches():
        rows.append(clip.encode_pixels(batch))
        if sum(map(len, rows)) >= MEASURED:
            break
    return np.concatenate(rows)[:MEASURED]


def _templates(request: QuantizeRequest) -> tuple[str, ...]:
    given = request.templates or (DEFAULT_TEMPLATE,)
    return tuple(sentence for template in given for sentence in resolve_templates(template))
