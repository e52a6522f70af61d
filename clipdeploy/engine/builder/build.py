"""One typed graph to one engine file."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from clipdeploy.engine.builder import messages
from clipdeploy.engine.builder.capabilities import choose_capabilities
from clipdeploy.engine.builder.config import check_options, make_config
from clipdeploy.engine.builder.log import BuilderLog, listening
from clipdeploy.engine.builder.memory import MemoryPlan, plan_memory
from clipdeploy.engine.builder.monitor import BuildMonitor, attach
from clipdeploy.engine.builder.network import parse_network
from clipdeploy.engine.builder.outline import Outline, read_outline
from clipdeploy.engine.builder.profiles import add_profiles, check_profiles
from clipdeploy.engine.builder.timing import CacheOrigin, check_cache, open_cache, save_cache
from clipdeploy.engine.product import Product
from clipdeploy.engine.records import BuildMachine, BuildOptions, Built
from clipdeploy.errors import EngineError, OutputError
from clipdeploy.progress import Progress, silent
from clipdeploy.runtime.trt.gpus import gpu_for_threads
from clipdeploy.writing import full_disk, replacing

T = TypeVar("T")
_LISTEN_S = 0.1


def build(
    graph: Path,
    plan: Path,
    options: BuildOptions,
    product: Product,
    *,
    machine: BuildMachine,
    progress: Progress = silent,
) -> Built:
    """Build an engine and write it to `plan`, whole or not at all.

    Everything that can be checked is checked before the builder starts. The builder works in a thread of its own:
    Ctrl-C then ends it at its next step, and only when it has ended does KeyboardInterrupt go on to the caller.

    Args:
        graph: an ONNX file with one input; weights may lie beside it.
        plan: where the engine goes; the folder must be there.
        options: how it is built.
        product: what builds it.
        machine: this one, for its GPU and its free memory.
        progress: told the stages and their steps, from the builder's thread.

    Raises:
        EngineError: the graph, the options, the machine and the product do not fit together, or building failed.
        OutputError: the file cannot be written.
        KeyboardInterrupt: the user stopped it; nothing is left behind.
    """
    check_options(options, product, machine)
    outline = read_outline(graph)
    messages.check_domains(outline, product)
    check_profiles(options.profiles, outline)
    asked, here = options.compute_capabilities, machine.compute_capability
    capabilities = choose_capabilities(product, outline, asked=asked, here=here)
    memory = plan_memory(outline, options, product, machine)
    origin = CacheOrigin(product.backend, product.version, capabilities[0])
    if options.timing_cache is not None:
        check_cache(options.timing_cache, origin)
    if not plan.parent.is_dir():
        raise OutputError(f"cannot write {plan}: there is no folder {plan.parent}", fix="make the folder first")

    job = _Job(outline, options, product, capabilities, memory, origin)
    monitor = BuildMonitor(graph.name, progress)
    started = time.perf_counter()
    serialised, log = _interruptible(lambda: job.run(monitor), monitor)
    size = _write(serialised, plan)
    skipped = log.skipped_for_memory
    warnings = [*memory.warnings, *log.warnings]
    if skipped:
        warnings.append(f"{skipped} kernels were not tried for want of memory; the engine may be slower than it could")
    return Built(
        path=plan,
        size_bytes=size,
        seconds=time.perf_counter() - started,
        compute_capabilities=capabilities,
        log=tuple(log.layers),
        warnings=tuple(warnings),
    )


class _Job:
    """The part of a build that the product does; runs in the builder's thread."""

    def __init__(
        self,
        outline: Outline,
        options: BuildOptions,
        product: Product,
        capabilities: tuple[str, ...],
        memory: MemoryPlan,
        origin: CacheOrigin,
    ) -> None:
        self.outline, self.options, self.product = outline, options, product
        self.capabilities, self.memory, self.origin = capabilities, memory, origin

    def run(self, monitor: BuildMonitor) -> tuple[Any, BuilderLog]:
        """The engine as the product's own memory, and what was said."""
        with listening(self.product.module) as (logger, log):
            try:
                return self._build(logger, log, monitor), log
            except (RuntimeError, TypeError, ValueError, MemoryError) as error:
                # The bindings turn a failed C++ constructor into TypeError, and the rest into RuntimeError.
                if isinstance(error, EngineError):
                    raise
                raise self._failure([*log.errors, str(error) or type(error).__name__], log) from error

    def _build(self, logger: Any, log: BuilderLog, monitor: BuildMonitor) -> Any:
        options, module = self.options, self.product.module
        monitor.progress(f"{monitor.label}: reading the graph", 0, 0)
        builder = module.Builder(logger)
        # The parser's and the monitor's objects are read while the engine is built.
        network, _parser = parse_network(builder, logger, log, self.outline, self.product)
        config = make_config(
            builder,
            self.product,
            options,
            capabilities=self.capabilities,
            workspace_bytes=self.memory.workspace_bytes,
        )
        add_profiles(builder, config, network, options.profiles)
        _monitor = attach(config, module, monitor)
        cache = open_cache(config, options.timing_cache, self.product) if options.timing_cache else None
        serialised = None if monitor.cancelled else builder.build_serialized_network(network, config)
        if serialised is None and not monitor.cancelled:
            raise self._failure(log.errors, log)
        if serialised is not None and cache is not None and options.timing_cache is not None:
            try:
                save_cache(config, cache, options.timing_cache, self.origin)
            except OutputError as error:  # the engine took minutes, and is none the worse for it
                log.warnings.append(error.message)
        return serialised

    def _failure(self, errors: list[str], log: BuilderLog) -> EngineError:
        return messages.build_failure(
            errors,
            self.outline,
            self.product,
            free_bytes=self.memory.free_bytes,
            skipped_for_memory=log.skipped_for_memory,
            stripped=self.options.strip_weights,
        )


def _interruptible(work: Callable[[], T], monitor: BuildMonitor) -> T:
    """Do `work` in another thread; Ctrl-C cancels it through the monitor, and is raised once it has ended."""
    results: list[T] = []
    errors: list[BaseException] = []
    gpu = gpu_for_threads()
    begin, done = threading.Event(), threading.Event()

    def run() -> None:
        begin.wait()
        try:
            if not monitor.cancelled:
                with gpu():
                    results.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again below, in the thread that waits
            errors.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=run, name="engine builder", daemon=True)
    try:
        thread.start()
    except KeyboardInterrupt:
        monitor.cancel()
        begin.set()
        raise
    interrupted: KeyboardInterrupt | None = None
    while True:
        try:
            begin.set()
            # Not by join: interrupted, it takes a thread that runs for one that has ended (Python 3.9 to 3.12).
            while not done.wait(_LISTEN_S):
                pass
            thread.join()
            break
        except KeyboardInterrupt as error:
            if interrupted is not None:
                raise  # the second time the user does not want to wait
            interrupted = error
            monitor.cancel()
    if interrupted is not None:
        raise interrupted
    if monitor.error is not None:
        raise monitor.error
    if errors:
        raise errors[0]
    return results[0]


def _write(serialised: Any, plan: Path) -> int:
    """Write the engine beside its place and rename it; returns its size in bytes."""
    content = memoryview(serialised).cast("B")  # the builder's own memory: an engine may be larger than what is free
    try:
        with replacing(plan) as beside, beside.open("wb") as file:
            file.write(content)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise full_disk(plan.parent, content.nbytes, error) from error
        raise OutputError(
            f"cannot write the engine {plan}: {error.strerror}", fix="build into a folder that can be written"
        ) from error
    return content.nbytes
