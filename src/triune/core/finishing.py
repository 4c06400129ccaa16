"""Converts responses to the client's form in threads if that is slow (sorting, formatting), so that neither the event
loop nor the model's workers wait.
"""

from triune.core.fair_slots import FairSlots
from triune.core.requests import InferenceResponse
from triune.core.servable import Finisher
from triune.core.threads import in_thread_to_its_end


class Finishing:
    """Applies a `Finisher` to the responses of a model in threads, one at a time, since formatting holds the GIL.

    Small responses go before large ones.
    """

    def __init__(self) -> None:
        self._slots = FairSlots(1)

    async def run(self, finish: Finisher, response: InferenceResponse) -> InferenceResponse:
        """Convert a response with `finish`. If the caller is cancelled while a thread works on the response, the next
        response waits for that thread.

        Raises:
            TriuneError: the finisher raised this error, or no thread can be started.
        """
        async with self._slots.slot(finish.num_elements(response.outputs)):
            return await in_thread_to_its_end(finish.convert, response)
