from __future__ import annotations

from clipdeploy.engine.builder.monitor import BuildMonitor

News = list[tuple[str, int, int]]


def monitored() -> tuple[BuildMonitor, News]:
    news: News = []
    return BuildMonitor("visual.onnx", lambda *what: news.append(what)), news


def test_phases_nest_and_the_innermost_is_told() -> None:
    monitor, news = monitored()
    monitor.start("Building engine", 6)
    monitor.start("Timing graph nodes", 3)
    assert monitor.step("Timing graph nodes", 0)
    assert monitor.step("Timing graph nodes", 1)
    monitor.finish("Timing graph nodes")
    assert monitor.step("Building engine", 0)
    monitor.finish("Building engine")
    assert news == [
        ("visual.onnx: preparing", 0, 6),
        ("visual.onnx: timing kernels", 0, 3),
        ("visual.onnx: timing kernels", 1, 3),
        ("visual.onnx: timing kernels", 2, 3),
        ("visual.onnx: preparing", 1, 6),
    ]


def test_a_phase_of_one_step_has_nothing_to_count() -> None:
    monitor, news = monitored()
    monitor.start("Determining refit engines", 1)
    assert news == [("visual.onnx: compiling kernels", 0, 0)]


def test_an_unknown_phase_keeps_its_name() -> None:
    monitor, news = monitored()
    monitor.start("Weaving", 7)
    assert news == [("visual.onnx: Weaving", 0, 7)]


def test_phases_of_one_name_inside_each_other() -> None:
    monitor, _ = monitored()
    monitor.start("Timing", 2)
    monitor.start("Timing", 5)
    monitor.step("Timing", 3)
    assert monitor.stage() == ("Timing", 4, 5)
    monitor.finish("Timing")
    assert monitor.stage() == ("Timing", 0, 2)


def test_a_phase_takes_along_what_it_contains() -> None:
    monitor, _ = monitored()
    monitor.start("outer", 2)
    monitor.start("inner", 5)
    monitor.finish("outer")  # an error may leave the inner one open
    assert monitor.stage() == ("preparing", 0, 0)
    monitor.finish("never begun")
    assert monitor.step("never begun", 0)


def test_cancelled() -> None:
    monitor, news = monitored()
    monitor.start("Building engine", 6)
    monitor.cancel()
    assert news[-1] == ("visual.onnx: stopping", 0, 0)
    assert not monitor.step("Building engine", 0)


def test_an_error_of_the_callback_ends_the_build_and_is_kept() -> None:
    error = OSError("the terminal is gone")

    def broken(what: str, done: int, total: int) -> None:
        raise error

    monitor = BuildMonitor("visual.onnx", broken)
    monitor.start("Building engine", 6)
    assert monitor.error is error
    assert not monitor.step("Building engine", 0)
