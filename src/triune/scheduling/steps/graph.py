"""The servable of an ensemble, which runs a graph of steps.

Everything runs on the event loop's thread. A step starts as soon as its input tensors are available. `_pump` is the
main loop: it runs when a request arrives and when a step has answered, and starts steps until none is ready. Tensors go
from step to step without a copy.
"""

import asyncio
import logging
import math
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from functools import partial

from triune.config.ensemble.steps import Step
from triune.config.limits import RunLimit
from triune.config.model_config import ModelConfig
from triune.core.clock import Clock
from triune.core.errors import InternalError, TriuneError, UnavailableError
from triune.core.finishing import Finishing
from triune.core.requests import InferenceResponse, RequestedOutput
from triune.core.servable import Call, only_answer
from triune.core.statistics import FailureReason, ModelStatistics
from triune.scheduling.models import LoadedVersion, Models
from triune.scheduling.steps.counting import Counting
from triune.scheduling.steps.failure import typed, with_step
from triune.scheduling.steps.plan import plan
from triune.scheduling.steps.run import Run, Value, request_of, response_of
from triune.scheduling.steps.slots import Slots

_log = logging.getLogger(__name__)

_MAX_TURN_NS = 500_000
"""How long, in ns, steps that answer at once may run one after the other before the event loop gets control."""

_FINISH = -1
"""The key, among the numbers of the running steps (`Run.under_way`), of the task that finishes an answer."""


class StepGraph:
    """A `Servable` that answers a request by requests to the models of its steps.

    A request holds a reference to these models, which answer it even if they are unloaded or replaced meanwhile. If the
    client cancels it, or one of its steps fails, its other steps are cancelled.
    """

    def __init__(
        self,
        config: ModelConfig,
        version: int,
        steps: Sequence[Step],
        models: Models,
        statistics: ModelStatistics,
        clock: Clock,
        *,
        max_under_way: int = 0,
        max_waiting: int = 0,
        run_limit_seconds: float = math.inf,
    ) -> None:
        """Args:
        config: the ensemble's configuration.
        version: the version, for answers.
        steps: an acyclic graph, in which one step writes each tensor.
        models: looks up the models of the steps.
        statistics: the counters that the graph updates, on the loop's thread.
        clock: the clock.
        max_under_way: the number of requests that may run in one step at a time; 0 for no limit (Triton's
            `max_inflight_requests`). Others wait.
        max_waiting: the number of requests that may wait at one step; 0 for no limit. Further ones are refused.
        run_limit_seconds: the time limit of a request, from its arrival to its answer; after it, its client gets an
            error and its steps are cancelled.
        """
        self._config = config
        self._name = config.name
        self._version = version
        self._steps = steps
        self._models = models
        self.statistics = statistics
        self._counting = Counting(statistics, clock)
        self._clock = clock
        self._slots = [Slots(max_under_way, max_waiting) for _ in steps]
        self._asked = [tuple(map(RequestedOutput, step.outputs)) for step in steps]
        self._outputs = tuple(config.outputs)
        self._has_batch = config.batching.max_batch_size > 0
        self._whole_plan = plan(steps, self._outputs)
        self._ready: deque[tuple[Run, int, bool]] = deque()
        self._runs: dict[Run, None] = {}
        self._run_limit = RunLimit(clock, run_limit_seconds, self._unanswered, self._end_late)
        self._finishing = Finishing()
        self._idle: asyncio.Event | None = None
        self._is_pumping = False
        self._is_refusing = False

    def submit(self, call: Call) -> asyncio.Future[InferenceResponse]:
        """Start a request: see `Servable.submit`.

        Raises:
            UnavailableError: the ensemble is being unloaded, or the model of a step is not ready.
            NotFoundError: the model of a step does not exist any more.
        """
        if self._is_refusing:
            self._counting.reject()
            raise UnavailableError(f"model '{self._name}' is being unloaded; ask the repository index for its state")
        outputs = [output.name for output in call.request.outputs] or self._outputs
        is_whole = len(outputs) == len(self._outputs)
        needed = self._whole_plan if is_whole else plan(self._steps, outputs)
        started_ns = self._clock.now_ns()
        try:
            models = self._hold(needed.steps)
        except TriuneError:
            self._counting.reject()
            raise
        future = asyncio.get_running_loop().create_future()
        run = Run(call, future, needed, models, outputs, started_ns)
        self._runs[run] = None
        self._counting.begin()
        rows = call.batch_size if self._has_batch else 0
        for name in self._config.inputs:
            self._put(run, name, Value(call.inputs.get(name), rows))
        if not run.num_left:
            self._answer(run)
        self._pump()
        if not future.done():
            future.add_done_callback(lambda _: self._withdraw(run))
            self._run_limit.watch()
        return future

    def stream(self, call: Call) -> AsyncGenerator[InferenceResponse]:
        """Yield the one answer of a request: see `Servable.stream`."""
        return only_answer(self, call)

    def refuse(self) -> None:
        """Refuse new requests. Running ones go on, but the models of their steps may refuse further requests."""
        self._is_refusing = True

    async def drain(self) -> None:
        """Wait until no request runs."""
        while self._runs:
            idle = self._idle = self._idle or asyncio.Event()
            await idle.wait()

    async def close(self) -> None:
        """Refuse new requests, and let running ones finish."""
        self.refuse()
        await self.drain()
        self._run_limit.close()

    def _hold(self, steps: Mapping[int, Step]) -> Mapping[tuple[str, int | None], LoadedVersion]:
        models: dict[tuple[str, int | None], LoadedVersion] = {}
        for step in steps.values():
            if (step.model, step.version) not in models:
                try:
                    models[step.model, step.version] = self._models.get(step.model, step.version)
                except TriuneError as error:
                    raise with_step(error, step, self._name) from error
        for model in models.values():
            model.holds.hold()
        return models

    def _put(self, run: Run, name: str, value: Value) -> None:
        self._ready.extend((run, number, False) for number in run.put(name, value))

    def _pump(self) -> None:
        # A step that answers at once calls `_pump` again within `_start`. This inner call returns at once, and the
        # outer loop goes on.
        if self._is_pumping:
            return
        self._is_pumping = True
        until_ns = self._clock.now_ns() + _MAX_TURN_NS
        try:
            while self._ready:
                self._start(*self._ready.popleft())
                if self._ready and self._clock.now_ns() > until_ns:
                    asyncio.get_running_loop().call_soon(self._pump)
                    break
        finally:
            self._is_pumping = False

    def _start(self, run: Run, number: int, has_slot: bool) -> None:
        """Start step `number` of a request, whose input tensors are available. If too many requests run in that step,
        this request waits, unless it `has_slot` already, since another request left it one.
        """
        step = self._steps[number]
        if run.future.done():
            if has_slot:
                self._free_slot(number)
            return
        try:
            if not has_slot and not self._slots[number].enter(run):
                return
        except UnavailableError as error:
            self._fail(run, with_step(error, step, self._name))
            return
        try:
            future = self._submit(run, step)
        except TriuneError as error:
            self._free_slot(number)
            self._fail(run, with_step(error, step, self._name))
            return
        except Exception as error:  # noqa: BLE001 - a defect fails this request, and no other
            _log.exception("a step of ensemble '%s' could not be begun", self._name)
            self._free_slot(number)
            defect = InternalError(f"unexpected {type(error).__name__}: {error}")
            self._fail(run, with_step(defect, step, self._name))
            return
        run.under_way[number] = future
        if future.done():
            self._on_answer(run, number, future)
        else:
            future.add_done_callback(partial(self._on_answer, run, number))

    def _submit(self, run: Run, step: Step) -> asyncio.Future[InferenceResponse]:
        model = run.models[step.model, step.version]
        request = request_of(run, step, self._asked[step.number], model.config)
        call = model.check(request)
        call.compute_time = run.compute_time
        call.bill = run.call.bill
        return model.servable.submit(call)

    def _on_answer(self, run: Run, number: int, future: asyncio.Future[InferenceResponse]) -> None:
        """Handle the answer of a step, once its future is done."""
        del run.under_way[number]
        self._free_slot(number)
        step = self._steps[number]
        error = UnavailableError("the request was withdrawn") if future.cancelled() else future.exception()
        if not run.future.done():
            if error is not None:
                self._fail(run, with_step(error, step, self._name))
            else:
                self._put_outputs(run, step, future.result())
        self._end_if_done(run)
        self._pump()

    def _put_outputs(self, run: Run, step: Step, response: InferenceResponse) -> None:
        config = run.models[step.model, step.version].config
        has_batch = config.batching.max_batch_size > 0
        for own, tensor in step.outputs.items():
            array = response.outputs.get(own)
            rows = len(array) if array is not None and has_batch else 0
            self._put(run, tensor, Value(array, rows))
        if not run.num_left:
            self._answer(run)

    def _free_slot(self, number: int) -> None:
        """End a request's use of a step, and start the step for the next waiting request."""
        waiting = self._slots[number].leave()
        if waiting is not None:
            self._ready.append((waiting, number, True))

    def _answer(self, run: Run) -> None:
        call = run.call
        response = response_of(run, self._config, self._version)
        if call.finish is not None and not call.finish.is_quick(response.outputs):
            finishing = asyncio.get_running_loop().create_task(self._finishing.run(call.finish, response))
            run.under_way[_FINISH] = finishing
            finishing.add_done_callback(partial(self._finish, run))
            return
        try:
            self._succeed(run, call.finish.convert(response) if call.finish else response)
        except Exception as error:  # noqa: BLE001 - the client gets the error, and a defect is logged
            self._fail(run, typed(error, self._name))
        self._end_if_done(run)

    def _finish(self, run: Run, finishing: asyncio.Future[InferenceResponse]) -> None:
        del run.under_way[_FINISH]
        error = None if finishing.cancelled() else finishing.exception()
        if not run.future.done():
            if error is None:
                self._succeed(run, finishing.result())
            else:
                self._fail(run, typed(error, self._name))
        self._end_if_done(run)

    def _succeed(self, run: Run, response: InferenceResponse) -> None:
        self._counting.succeed(run, response)
        run.future.set_result(response)

    def _fail(self, run: Run, error: TriuneError) -> None:
        if run.future.done():
            return
        self._counting.fail(run, FailureReason.OTHER)
        run.future.set_exception(error)
        self._cancel_steps(run)

    def _unanswered(self) -> Iterator[tuple[Run, int]]:
        return ((run, run.started_ns) for run in self._runs if not run.future.done())

    def _end_late(self, run: Run) -> None:
        """Fail a request that has exceeded its time limit."""
        error = UnavailableError(
            f"ensemble '{self._name}' did not answer within {self._run_limit.seconds:g} s, and its steps were "
            "cancelled; allow it more by --run-timeout-secs, or by its parameter 'run_timeout_secs'"
        )
        _log.error("%s", error)
        self._fail(run, error)

    def _withdraw(self, run: Run) -> None:
        """Cancel the steps of a request that the client cancelled. Called when the future of the request is done."""
        if run.future.cancelled():
            self._counting.fail(run, FailureReason.CANCELED)
            self._cancel_steps(run)

    def _cancel_steps(self, run: Run) -> None:
        run.values.clear()
        for slots in self._slots:
            slots.forget(run)
        for future in list(run.under_way.values()):
            future.cancel()
        self._end_if_done(run)

    def _end_if_done(self, run: Run) -> None:
        if run.under_way or not run.future.done() or run not in self._runs:
            return
        del self._runs[run]
        for model in run.models.values():
            model.holds.release()
        if self._idle is not None and not self._runs:
            self._idle.set()
            self._idle = None
