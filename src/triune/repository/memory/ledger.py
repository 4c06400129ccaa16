"""The memory budget of all models, and what each loaded version is charged with."""

from collections.abc import Mapping

from triune.core.errors import InternalError


class Charge:
    """The bytes that one version of a model is charged with, from the start of its load until it is freed.

    Attributes:
        name: the model.
        num_bytes: estimated until the version is loaded, measured then where that is possible.
        is_leaving: whether the version is being freed, or will be freed when its requests have finished.
    """

    __slots__ = ("_ledger", "is_leaving", "name", "num_bytes")

    def __init__(self, ledger: "MemoryLedger", name: str, num_bytes: int) -> None:
        self._ledger = ledger
        self.name = name
        self.num_bytes = num_bytes
        self.is_leaving = False

    def resize(self, num_bytes: int) -> None:
        """Change the charge to this number of bytes. It may exceed the budget, since the memory is in use already.
        After `release` this does nothing.
        """
        self._ledger.resize(self, num_bytes)

    def release(self) -> None:
        """End the charge. Calling this again does nothing."""
        self._ledger.drop(self)


class MemoryLedger:
    """Counts the memory that models are charged with. Use it on the event loop's thread only.

    Invariant: `used_bytes` is the sum of `fixed` and of all charges (`check`).
    """

    def __init__(self, budget_bytes: int, fixed: Mapping[str, int]) -> None:
        """Args:
        budget_bytes: the memory that all models together may take.
        fixed: the memory that counts besides the models, in bytes by name, such as the response cache at its largest
            size.
        """
        self.budget_bytes = budget_bytes
        self.fixed = dict(fixed)
        self.used_bytes = sum(self.fixed.values())
        self._charges: dict[int, Charge] = {}

    @property
    def free_bytes(self) -> int:
        """The uncharged bytes of the budget; below 0 if loaded models turned out to take more than was estimated."""
        return self.budget_bytes - self.used_bytes

    @property
    def largest_bytes(self) -> int:
        """The most bytes that a single model can take: the budget without the fixed charges."""
        return self.budget_bytes - sum(self.fixed.values())

    def charge(self, name: str, num_bytes: int) -> Charge:
        """Charge a version of a model, whether it fits or not."""
        charge = Charge(self, name, num_bytes)
        self._charges[id(charge)] = charge
        self.used_bytes += num_bytes
        return charge

    def leaving(self) -> list[Charge]:
        """The charges of versions that are being freed."""
        return [each for each in self._charges.values() if each.is_leaving]

    @property
    def leaving_bytes(self) -> int:
        """The bytes that will become free when the versions that are being freed are gone."""
        return sum(each.num_bytes for each in self.leaving())

    def by_model(self) -> dict[str, int]:
        """The bytes of each model that is charged, all its versions together."""
        sums: dict[str, int] = {}
        for each in self._charges.values():
            sums[each.name] = sums.get(each.name, 0) + each.num_bytes
        return sums

    def resize(self, charge: Charge, num_bytes: int) -> None:
        """Change a charge to `num_bytes`. Only `Charge.resize` calls this."""
        if id(charge) in self._charges:
            self.used_bytes += num_bytes - charge.num_bytes
            charge.num_bytes = num_bytes

    def drop(self, charge: Charge) -> None:
        """End a charge. Only `Charge.release` calls this."""
        if self._charges.pop(id(charge), None) is not None:
            self.used_bytes -= charge.num_bytes

    def check(self) -> None:
        """Raise InternalError if `used_bytes` is not the sum of all charges."""
        total = sum(self.fixed.values()) + sum(each.num_bytes for each in self._charges.values())
        if total != self.used_bytes:
            raise InternalError(f"models are charged with {total} bytes, but {self.used_bytes} are counted")
