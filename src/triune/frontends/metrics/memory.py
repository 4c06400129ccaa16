"""Metrics of the memory budget: its size, the memory charged to each model, and the number of models unloaded to make
room.
"""

from collections.abc import Iterable

from prometheus_client.metrics_core import Metric

from triune.repository.memory.keeper import MemoryKeeper


def memory(keeper: MemoryKeeper) -> Iterable[Metric]:
    """Yield the metric families of memory. Other users of memory than models appear by name in the label `model`, such
    as "the response cache".
    """
    budget = Metric("triune_memory_budget_bytes", "Memory that all models may take together", "gauge")
    budget.add_sample(budget.name, {}, keeper.ledger.budget_bytes)
    charged = Metric("triune_memory_charged_bytes", "Memory that each model is charged with", "gauge")
    for name, num_bytes in sorted({**keeper.ledger.fixed, **keeper.ledger.by_model()}.items()):
        charged.add_sample(charged.name, {"model": name}, num_bytes)
    waiting = Metric("triune_memory_waiting_requests", "Requests that wait until their model is loaded", "gauge")
    unloads = Metric("triune_memory_unloads_total", "How often each model was unloaded for room", "counter")
    ahead = Metric("triune_memory_loads_ahead_total", "How often each was loaded before it was asked for", "counter")
    refusals = Metric("triune_memory_refusals_total", "How often there was no room for each model", "counter")
    for record in keeper.records():
        labels = {"model": record.name}
        if record.parked:
            waiting.add_sample(waiting.name, labels, sum(each.num_waiting for each in record.parked.values()))
        for family, count in (
            (unloads, record.usage.num_unloaded),
            (ahead, record.usage.num_loaded_ahead),
            (refusals, record.usage.num_refused),
        ):
            if count:
                family.add_sample(family.name, labels, count)
    yield from (budget, charged, waiting, unloads, ahead, refusals)
