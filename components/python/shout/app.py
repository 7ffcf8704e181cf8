"""Writes values in capitals.

In: events whose values are text. Out: the same events, in capitals. Aside: events without a value, and values that are no text.
"""

from wit_world import exports
from wit_world.imports import types


class Transformer(exports.Transformer):
    def process(self, input: types.Batch, out: types.Collector) -> None:
        events = []
        for row, event in enumerate(input.events()):
            try:
                event.value = event.value.decode().upper().encode()
                events.append(event)
            except (AttributeError, UnicodeDecodeError) as why:
                out.reject(row, str(why))
        if events:
            out.emit("", events)
